"""A mask into the box around it at 64 x 64, as the codec sees it, and back into the picture.

Boxes are (y_min, x_min, y_max, x_max) in shares of the picture, row 0 at the top, and may end between two pixels.
Masks resample with a triangle: bilinear where pixels grow, anti-aliased where they shrink, with one as wide as the
coarser grid on the way in (big_vision crops to whole pixels, then resizes like this) and half as wide on the way out,
or a hole of one pixel would close. Pixels count whose centre is in the box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from vla.errors import ConfigError
from vla.models.mask_codec import CODEC_SIDE


def mask_box(mask: Bool[ndarray, "height width"]) -> tuple[float, float, float, float]:
    """Returns the smallest box around a mask, in shares of the picture; raises ConfigError for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ConfigError(
            "an empty mask has no box; leave out objects that the picture does not show"
        )
    height, width = mask.shape
    return (
        float(rows[0] / height),
        float(columns[0] / width),
        float((rows[-1] + 1) / height),
        float((columns[-1] + 1) / width),
    )


def crop_mask(mask: Bool[ndarray, "height width"], box: Sequence[float]) -> Float[ndarray, "64 64"]:
    """Returns what of `mask` lies in `box`, float32 in [0, 1].

    Raises:
        ConfigError: a box that is upside down, or not finite.
    """
    if not _is_proper(box):
        raise ConfigError(
            f"a box is (y_min, x_min, y_max, x_max), each min below its max; got {list(box)}"
        )
    rows = _into_box(box[0], box[2], mask.shape[0])
    columns = _into_box(box[1], box[3], mask.shape[1])
    return rows @ mask.astype(np.float32) @ columns.T


def paste_mask(
    probabilities: Float[ndarray, "64 64"], box: Sequence[float], height: int, width: int
) -> Bool[ndarray, "height width"]:
    """Returns the mask in a picture of `height` x `width` pixels: True where the probability is above a half.

    A box that is upside down, which a model may well write, covers nothing; a thin one at least the nearest pixels.
    """
    pasted = np.zeros((height, width), bool)
    if not _is_proper(box):
        return pasted
    first_row, rows = _out_of_box(box[0], box[2], height)
    first_column, columns = _out_of_box(box[1], box[3], width)
    inside = rows @ probabilities.astype(np.float32) @ columns.T > 0.5
    bottom, right = first_row + len(rows), first_column + len(columns)
    pasted[first_row:bottom, first_column:right] = inside
    return pasted


def _is_proper(box: Sequence[float]) -> bool:
    y_min, x_min, y_max, x_max = box
    return bool(np.isfinite(list(box)).all() and y_min < y_max and x_min < x_max)


def _pixels_inside(low: float, high: float, size: int) -> tuple[int, int]:
    """First and last pixel whose centre lies between two shares; the nearest one where there is none."""
    first, last = int(np.ceil(low * size - 0.5)), int(np.floor(high * size - 0.5))
    if first > last:
        first = last = int(np.floor((low + high) / 2 * size))
    return min(max(first, 0), size - 1), min(max(last, 0), size - 1)


def _into_box(low: float, high: float, size: int) -> Float[ndarray, "64 size"]:
    first, last = _pixels_inside(low, high, size)
    cell = (high - low) * size / CODEC_SIDE  # in pixels
    centers = low * size + (np.arange(CODEC_SIDE) + 0.5) * cell
    matrix = np.zeros((CODEC_SIDE, size), np.float32)
    matrix[:, first : last + 1] = _triangles(centers - first, cell, last + 1 - first)
    return matrix


def _out_of_box(low: float, high: float, size: int) -> tuple[int, Float[ndarray, "inside 64"]]:
    """First pixel of the box, and the weights of the 64 cells for it and those after it."""
    first, last = _pixels_inside(low, high, size)
    pixel = CODEC_SIDE / ((high - low) * size)  # in cells
    centers = (np.arange(first, last + 1) + 0.5 - low * size) * pixel
    return first, _triangles(centers, pixel / 2, CODEC_SIDE)


def _triangles(
    centers: Float[ndarray, " outputs"], scale: float, num_inputs: int
) -> Float[ndarray, "outputs inputs"]:
    """Rows of weights that sum to 1: how much each input counts at each centre, in inputs; the border is repeated."""
    centers = np.clip(centers, 0.5, num_inputs - 0.5)
    distance = np.abs(centers[:, None] - (np.arange(num_inputs) + 0.5))
    weights = np.maximum(1.0 - distance / max(scale, 1.0), 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
