import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vla.data.mask_crops import crop_mask, mask_box, paste_mask
from vla.errors import ConfigError


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    return y**2 + x**2 < radius**2


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_masks_of_a_few_pixels_come_back_pixel_for_pixel(mask):
    """Up to 8 px a side; where fewer cells show a pixel, smoothing may round single ones away."""
    if not mask.any():
        with pytest.raises(ConfigError, match="empty mask"):
            mask_box(mask)
        return
    box = mask_box(mask)
    pasted = paste_mask(crop_mask(mask, box), box, *mask.shape)
    if max(mask.shape) <= 8:
        assert np.array_equal(pasted, mask)
    assert pasted.shape == mask.shape


@pytest.mark.parametrize("size", [20, 64, 200, 500])
def test_a_disc_of_any_size_comes_back(size):
    mask = disc(size, 0.45 * size)
    box = mask_box(mask)
    assert iou(paste_mask(crop_mask(mask, box), box, size, size), mask) > 0.97


def test_a_full_box_is_full_and_the_outside_stays_empty():
    mask = np.zeros((30, 50), bool)
    mask[10:20, 15:25] = True
    box = mask_box(mask)
    assert box == (10 / 30, 15 / 50, 20 / 30, 25 / 50)
    crop = crop_mask(mask, box)
    assert crop.shape == (64, 64)
    assert crop.dtype == np.float32
    np.testing.assert_allclose(crop, 1.0, rtol=1e-6)
    assert np.array_equal(paste_mask(crop, box, 30, 50), mask)


def test_large_masks_are_averaged_and_not_sampled():
    """Stripes of one pixel vanish into grey; taking every eighth pixel would make them all or nothing."""
    mask = np.zeros((512, 512), bool)
    mask[::2] = True
    crop = crop_mask(mask, (0.0, 0.0, 1.0, 1.0))
    np.testing.assert_allclose(crop[1:-1], 0.5, atol=0.02)


def test_a_crop_agrees_with_bilinear_resizing_where_pixels_grow():
    mask = np.eye(4, dtype=bool)
    crop = crop_mask(mask, (0.0, 0.0, 1.0, 1.0))
    centers = np.clip((np.arange(64) + 0.5) / 16 - 0.5, 0, 3)
    low = np.minimum(np.floor(centers).astype(int), 2)
    share = centers - low
    rows = mask[low] * (1 - share)[:, None] + mask[low + 1] * share[:, None]
    expected = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    np.testing.assert_allclose(crop, expected, atol=1e-6)


def test_a_box_rounded_to_location_tokens_keeps_the_mask():
    mask = np.zeros((96, 96), bool)
    mask[11:31, 40:73] = disc(33, 18)[:20]
    box = tuple(round(share * 1023) / 1023 for share in mask_box(mask))
    assert iou(paste_mask(crop_mask(mask, box), box, 96, 96), mask) > 0.97


def test_boxes_reach_beyond_the_picture_without_harm():
    probabilities = np.ones((64, 64), np.float32)
    assert paste_mask(probabilities, (-0.5, 0.5, 0.5, 1.5), 8, 8).sum() == 16


@pytest.mark.parametrize(
    "box", [(0.5, 0.1, 0.2, 0.9), (0.1, 0.5, 0.9, 0.5), (0.0, 0.0, np.nan, 1.0)]
)
def test_a_box_upside_down_covers_nothing_and_cannot_be_cropped(box):
    assert not paste_mask(np.ones((64, 64), np.float32), box, 10, 10).any()
    with pytest.raises(ConfigError, match="y_min, x_min, y_max, x_max"):
        crop_mask(np.ones((10, 10), bool), box)


def test_a_box_between_two_pixel_centres_takes_the_nearest_pixel():
    pasted = paste_mask(np.ones((64, 64), np.float32), (0.31, 0.31, 0.34, 0.34), 10, 10)
    assert pasted.sum() == 1
    assert pasted[3, 3]
