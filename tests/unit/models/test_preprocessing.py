"""Bad pictures, the order of values inside a patch, and the rules of size. Parity is in tests/parity."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import ConfigError
from vla.models.vision import pictures, preprocessing, resize_rules

FAMILIES = [
    preprocessing.openvla_pictures,
    preprocessing.openvla_pixels,
    preprocessing.siglip_pixels,
    preprocessing.siglip2_patches,
    preprocessing.qwen2_vl_patches,
    preprocessing.gemma4_patches,
    preprocessing.gemma4_unified_patches,
]
every_family = pytest.mark.parametrize("prepare", FAMILIES)
sides = st.integers(1, 3000)


@pytest.fixture
def coordinates() -> torch.Tensor:
    """96 x 144: red tells the row, green the column, blue is 7 everywhere."""
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(144), indexing="ij")
    return torch.stack([rows, columns, torch.full_like(rows, 7)]).to(torch.uint8)


@every_family
def test_a_picture_of_one_channel_is_refused(prepare):
    with pytest.raises(ConfigError, match=r"\(1, 32, 32\).*three colour channels"):
        prepare([torch.zeros(1, 32, 32, dtype=torch.uint8)])


@every_family
def test_a_picture_with_the_channels_last_is_refused(prepare):
    with pytest.raises(
        ConfigError, match=r"\(1, 32, 32, 3\); expected \(batch, 3, rows, columns\)"
    ):
        prepare(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))


@every_family
def test_a_picture_without_pixels_is_refused(prepare):
    with pytest.raises(ConfigError, match=r"32 x 0 px .* holds no pixels"):
        prepare([torch.zeros(3, 32, 0, dtype=torch.uint8)])


@every_family
def test_a_picture_of_extreme_ratio_is_refused(prepare):
    with pytest.raises(ConfigError, match=r"2 x 401 px .* longer than 200 times"):
        prepare([torch.zeros(3, 2, 401, dtype=torch.uint8)])


@every_family
def test_a_picture_that_is_already_scaled_is_refused(prepare):
    with pytest.raises(ConfigError, match=r"uint8 values 0\.\.255; got torch\.float32"):
        prepare([torch.zeros(3, 32, 32)])


@every_family
@pytest.mark.parametrize("nothing", [[], torch.zeros(0, 3, 32, 32, dtype=torch.uint8)])
def test_no_pictures_are_refused(prepare, nothing):
    with pytest.raises(ConfigError, match="no pictures"):
        prepare(nothing)


@pytest.mark.parametrize("clips", [[], [torch.zeros(0, 3, 56, 56, dtype=torch.uint8)]])
def test_a_clip_without_frames_is_refused(clips):
    with pytest.raises(ConfigError, match="no pictures"):
        preprocessing.qwen2_vl_clip_patches(clips)


def test_a_picture_in_place_of_a_clip_is_refused():
    with pytest.raises(ConfigError, match=r"expected \(frames, 3, rows, columns\)"):
        preprocessing.qwen2_vl_clip_patches([torch.zeros(3, 56, 56, dtype=torch.uint8)])


def test_bounds_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match="min_pixels 5000 and max_pixels 4000"):
        resize_rules.qwen2_vl_size(50, 50, min_pixels=5000, max_pixels=4000)


def test_an_empty_token_budget_is_refused():
    with pytest.raises(ConfigError, match=r"token_budget = 0 .* 70, 140, 280, 560, 1120"):
        resize_rules.gemma4_size(100, 100, token_budget=0)


def test_values_of_a_patch_run_along_columns_with_the_channels_innermost(coordinates):
    found = preprocessing.gemma4_unified_patches([coordinates], token_budget=70)
    rows, columns = found.grids[0].tolist()
    assert (rows, columns) == (6, 10)
    patch = found.pixels[0, 1].view(48, 48, 3)
    assert (patch[:, :, 0].diff(dim=0) >= 0).all()  # rows first
    assert (patch[:, :, 1].diff(dim=1) >= 0).all()
    assert found.positions[0, 1].tolist() == [1, 0]
    assert found.positions[0, columns].tolist() == [0, 1]


def test_qwen2_vl_patches_come_in_blocks_of_two_by_two(coordinates):
    picture = coordinates[:, :84, :112]  # a multiple of 28: not resized
    found = preprocessing.qwen2_vl_patches([picture], min_pixels=1)
    assert found.grids.tolist() == [[1, 6, 8]]
    assert found.num_tokens == [12]
    mean, std = torch.tensor(preprocessing.CLIP_MEAN), torch.tensor(preprocessing.CLIP_STD)
    corners = found.pixels.view(-1, 2, 14, 14, 3)[:, 0, 0, 0] * std + mean
    assert (corners[:5, :2] * 255).round().int().tolist() == [
        [0, 0],
        [0, 14],
        [14, 0],
        [14, 14],
        [0, 28],
    ]


def test_both_frames_of_a_still_picture_are_the_picture(coordinates):
    frames = preprocessing.qwen2_vl_patches([coordinates]).pixels.view(-1, 2, 14 * 14 * 3)
    assert torch.equal(frames[:, 0], frames[:, 1])


def test_pictures_of_mixed_sizes_stay_in_their_order(coordinates):
    mixed = [coordinates, coordinates[:, :50], coordinates // 2]
    together = preprocessing.siglip_pixels(mixed, 32)
    for row, picture in zip(together, mixed, strict=True):
        assert torch.equal(row, preprocessing.siglip_pixels([picture], 32)[0])


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(30, 500), (224, 224), (7, 9)])
def test_devices_without_a_uint8_kernel_are_at_most_two_levels_off(mode, size):
    noise = torch.randint(0, 256, (2, 3, 61, 83), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    exact = pictures.resize(noise, size, mode=mode)
    other = pictures._resize_in_float(noise, size, mode)
    assert (exact.int() - other.int()).abs().max() <= 2
    assert (exact != other).float().mean() < 0.02


@given(sides, sides, st.integers(28 * 28, 10**6), st.integers(0, 10**6))
def test_qwen2_vl_sizes_are_multiples_of_28_within_the_bounds(height, width, min_pixels, room):
    if max(height, width) > 20 * min(height, width):
        return  # a strip keeps at least one token across, whatever the bound
    max_pixels = 4 * min_pixels + 20 * 28 * 28 + room
    rows, columns = resize_rules.qwen2_vl_size(
        height, width, min_pixels=min_pixels, max_pixels=max_pixels
    )
    assert rows % 28 == columns % 28 == 0
    assert min_pixels <= rows * columns <= max_pixels


@given(sides, sides, st.sampled_from(resize_rules.GEMMA4_TOKEN_BUDGETS))
def test_gemma4_sizes_are_multiples_of_48_within_the_budget(height, width, budget):
    rows, columns = resize_rules.gemma4_size(height, width, token_budget=budget)
    assert rows % 48 == columns % 48 == 0
    assert 1 <= (rows // 48) * (columns // 48) <= budget


@given(sides, sides, st.integers(1, 1024))
def test_siglip2_sizes_are_multiples_of_16_within_the_patches(height, width, max_patches):
    rows, columns = resize_rules.siglip2_size(height, width, max_patches=max_patches)
    assert rows % 16 == columns % 16 == 0
    assert 1 <= (rows // 16) * (columns // 16) <= max_patches
