import io

import numpy as np
import pytest
from PIL import Image

from vla.data.mask_batches import MaskBatches, cropped, drawn_masks, gather_masks
from vla.data.procedural_masks import (
    LARGEST_SIDE,
    SMALLEST_SIDE,
    MaskShape,
    draw_mask,
    procedural_masks,
)
from vla.data.scene_rows import SceneObject, SceneRow
from vla.errors import DatasetError


def test_a_mask_depends_on_its_seed_and_number_alone():
    first, longer = list(procedural_masks(7, 3)), list(procedural_masks(7, 8))
    assert [shape for shape, _ in first] == [shape for shape, _ in longer[:3]]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, longer, strict=False))
    other = [mask.shape for _, mask in procedural_masks(8, 8)]
    assert other != [mask.shape for _, mask in longer]


def test_masks_of_every_shape_are_visible_and_of_many_sizes():
    drawn = list(procedural_masks(0, 200))
    assert {shape for shape, _ in drawn} == set(MaskShape)
    sides = [len(mask) for _, mask in drawn]
    assert min(sides) >= SMALLEST_SIDE
    assert max(sides) <= LARGEST_SIDE
    assert np.median(sides) < 40  # small ones are as frequent as large ones
    assert all(mask.sum() >= 6 for _, mask in drawn)


def test_a_box_fills_its_outline_and_an_ellipse_does_not():
    """Without anything hidden, areas follow from geometry; a third of the masks is partly hidden, the median not."""
    rng = np.random.default_rng(0)
    boxes, ellipses = (
        [_compactness(draw_mask(rng, shape, 80)) for _ in range(40)]
        for shape in (MaskShape.BOX, MaskShape.ELLIPSE)
    )
    assert np.median(ellipses) == pytest.approx(np.pi / 4, abs=0.02)
    assert np.median(boxes) < np.median(ellipses)  # rotated boxes leave their corners empty


def test_a_batch_is_a_function_of_its_step_and_mixes_both_kinds():
    of_scenes = np.full((5, 64, 64), 255, np.uint8)
    drawn = np.full((5, 64, 64), 51, np.uint8)
    batches = MaskBatches(of_scenes, drawn, batch_size=8, drawn_fraction=0.25)
    batch = batches.at(3)
    assert batch.masks.shape == (8, 64, 64)
    assert batch.masks.mean(dim=(1, 2)).tolist() == pytest.approx([1.0] * 6 + [0.2] * 2)
    ahead = list(batches.prefetch(2, 5))
    assert [made.step for made in ahead] == [2, 3, 4]
    assert ahead[1].masks.equal(batch.masks)


def test_masks_are_turned_and_mirrored():
    corner = np.zeros((1, 64, 64), np.uint8)
    corner[:, :8, :24] = 255
    batch = MaskBatches(corner[:0], corner, batch_size=8, drawn_fraction=0.0).at(0)
    assert len({mask.numpy().tobytes() for mask in batch.masks}) == 8
    assert batch.masks.sum(dim=(1, 2)).tolist() == [8 * 24] * 8


def test_no_masks_at_all_are_refused():
    none = np.zeros((0, 64, 64), np.uint8)
    with pytest.raises(DatasetError, match="no masks to train on"):
        MaskBatches(none, none, batch_size=4, drawn_fraction=0.5)


def test_masks_of_scenes_are_parted_by_their_seed_and_specks_left_out():
    rows = [row(3, [(2, 2), (1, 1)]), row(1_000_000, [(4, 6)]), row(4, [(5, 5)])]
    train, held_out = gather_masks(rows)
    assert [item.num_pixels for item in train] == [4, 25]
    assert [item.picture for item in train] == [0, 2]
    assert [item.num_pixels for item in held_out] == [24]
    assert held_out[0].shape == "cube"
    assert held_out[0].box == (0.0, 0.0, 4 / 20, 6 / 20)
    assert len(gather_masks(rows, limit=1)[0]) == 1
    np.testing.assert_array_equal(cropped(train), np.full((2, 64, 64), 255))


def test_drawn_masks_carry_tight_boxes():
    for item in drawn_masks(1_000_000, 20):
        side = len(item.mask)
        y_min, x_min, y_max, x_max = (round(share * side) for share in item.box)
        inside = item.mask[y_min:y_max, x_min:x_max]
        assert inside.sum() == item.num_pixels
        assert inside[0].any()
        assert inside[:, -1].any()


def row(seed: int, sizes: list[tuple[int, int]]) -> SceneRow:
    objects = []
    for height, width in sizes:
        mask = np.zeros((20, 20), bool)
        mask[:height, :width] = True
        encoded = io.BytesIO()
        Image.fromarray(mask).save(encoded, "PNG")
        objects.append(
            SceneObject(
                name="red cube",
                color="red",
                shape="cube",
                box=(0.0, 0.0, 1.0, 1.0),
                mask_png=encoded.getvalue(),
                num_pixels=height * width,
                is_clear=True,
            )
        )
    return SceneRow(
        frames=np.zeros((1, 3, 20, 20), np.uint8),
        camera="zoom",
        scene_seed=seed,
        kind="still",
        objects=tuple(objects),
        captions=(),
        questions=(),
    )


def _compactness(mask: np.ndarray) -> float:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return float(mask.sum() / box)
