import numpy as np
import pytest
import torch
from fake_pictures import scene_rows

from vla.data.crops import CropBatches, CropConfig, block_mask, crop
from vla.data.patch_labels import label_patches
from vla.errors import ConfigError


@pytest.mark.parametrize("num_hidden", [1, 5, 9, 16])
def test_a_mask_hides_exactly_as_many_patches_as_asked(num_hidden: int):
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert block_mask(4, num_hidden, rng).sum() == num_hidden


def test_a_crop_of_the_whole_picture_is_the_picture():
    picture = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)

    class Square:  # a generator that asks for all of it, neither wide nor tall
        def uniform(self, low: float, high: float, size: object) -> np.ndarray:
            return np.full(size, (low + high) / 2)

    assert torch.equal(crop(picture, 16, [1.0, 1.0], Square()), picture)  # type: ignore[arg-type]


def test_a_small_crop_shows_a_part_of_the_picture_enlarged():
    ramp = torch.arange(64, dtype=torch.uint8).expand(1, 3, 64, 64).contiguous()
    piece = crop(ramp, 32, [0.2, 0.2], np.random.default_rng(1))[0, 0, 0].int()
    assert (piece.diff() >= 0).all()
    assert 20 < int(piece[-1] - piece[0]) < 40  # 0.45 of the width, give or take its ratio


def test_a_batch_is_crop_after_crop_and_follows_from_its_step():
    pictures = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    options = CropConfig(num_local=3, local_size=16)
    made = [CropBatches(pictures, patch_size=8, batch_size=4, cfg=options).at(7) for _ in range(2)]
    assert made[0].global_crops.shape == (8, 3, 32, 32)
    assert made[0].local_crops.shape == (12, 3, 16, 16)
    assert made[0].is_masked.shape == (8, 16)
    assert torch.equal(made[0].global_crops, made[1].global_crops)
    assert torch.equal(made[0].is_masked, made[1].is_masked)


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"mask_ratio = \[0.5, 0.1\]; give \[least, most\]"):
        CropConfig(mask_ratio=[0.5, 0.1])


def test_a_labelled_patch_shows_the_colour_it_is_labelled_with():
    found = label_patches(
        scene_rows(6, first_seed=1_000_000), image_size=32, patch_size=4, max_pictures=6
    )
    shown = {"red": 0, "green": 1, "blue": 2}  # the channel that is brightest
    checked = 0
    for picture, patch, label in zip(
        found.picture, found.patch, found.labels["color"], strict=True
    ):
        name = found.names["color"][label]
        row, column = divmod(int(patch), 8)
        pixels = found.pictures[picture][:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
        if name in shown and pixels.std(axis=(1, 2)).max() < 1:  # wholly inside the object
            assert pixels.mean(axis=(1, 2)).argmax() == shown[name]
            checked += 1
    assert checked > 5
