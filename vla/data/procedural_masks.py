"""Masks drawn by numbers alone: silhouettes of solids, boxes, ellipses, polygons, unions, with parts hidden.

They teach the mask codec before, and beside, the masks of rendered scenes, and show it shapes and sizes that those
have not. A mask is drawn at the resolution of its object in a picture, 5 to 128 pixels, so that small objects have
the staircases that they have there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]  # (points, 2): row and column, in [-1, 1]

SMALLEST_SIDE, LARGEST_SIDE = 5, 128  # pixels
_LEAST_PIXELS = 6
_OCCLUDED, _CUT = (
    0.35,
    0.15,
)  # share of masks with a hidden part, and of those that leave the picture
_LEAST_VISIBLE = 0.35  # of the area that a mask has before something hides it
_CIRCLE = np.linspace(0.0, 2 * math.pi, 32, endpoint=False)


class MaskShape(Enum):
    """What a mask is the outline of."""

    CUBOID = "cuboid"  # a brick seen from an angle
    CYLINDER = "cylinder"  # upright or lying, seen from an angle
    ELLIPSE = "ellipse"
    BOX = "box"  # a rectangle, rotated
    POLYGON = "polygon"  # 3 to 10 corners around a centre, dented
    UNION = "union"  # two or three of the others


SCENE_SHAPES = (MaskShape.CUBOID, MaskShape.CYLINDER, MaskShape.ELLIPSE)


def procedural_masks(
    seed: int, count: int, shapes: tuple[MaskShape, ...] = tuple(MaskShape)
) -> Iterator[tuple[MaskShape, Mask]]:
    """Yields `count` masks with their shapes; mask k depends on `seed` and k alone."""
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        shape = shapes[rng.integers(len(shapes))]
        yield shape, draw_mask(rng, shape)


def draw_mask(rng: np.random.Generator, shape: MaskShape, side: int | None = None) -> Mask:
    """Returns a mask (side, side) with at least six pixels; `side` None draws one, small ones as often as large."""
    if side is None:
        low, high = math.log(SMALLEST_SIDE), math.log(LARGEST_SIDE + 1)
        side = int(math.exp(rng.uniform(low, high)))
    while True:
        mask = _outline(rng, shape, side)
        area = mask.sum()
        if rng.random() < _OCCLUDED:
            mask = mask & ~_shifted_outline(rng, side)
        if rng.random() < _CUT:
            mask = _cut(rng, mask)
        if mask.sum() >= max(_LEAST_PIXELS, _LEAST_VISIBLE * area):
            return mask


def _outline(rng: np.random.Generator, shape: MaskShape, side: int) -> Mask:
    match shape:
        case MaskShape.UNION:
            parts = [_outline(rng, _single(rng), side) for _ in range(rng.integers(2, 4))]
            return np.logical_or.reduce(parts)
        case MaskShape.CUBOID:
            return _filled(_fitted(rng, _cuboid(rng)), side)
        case MaskShape.CYLINDER:
            return _filled(_fitted(rng, _cylinder(rng)), side)
        case MaskShape.ELLIPSE:
            circle = np.stack([np.sin(_CIRCLE), rng.uniform(0.4, 1.0) * np.cos(_CIRCLE)], axis=1)
            return _filled(_fitted(rng, _rotated(rng, circle)), side)
        case MaskShape.BOX:
            corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
            corners[:, 1] *= rng.uniform(0.25, 1.0)
            return _filled(_fitted(rng, _rotated(rng, corners)), side)
        case MaskShape.POLYGON:
            angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 11)))
            radii = rng.uniform(0.35, 1.0, len(angles))
            return _filled(
                _fitted(rng, radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)),
                side,
            )


def _single(rng: np.random.Generator) -> MaskShape:
    shapes = [shape for shape in MaskShape if shape is not MaskShape.UNION]
    return shapes[rng.integers(len(shapes))]


def _shifted_outline(rng: np.random.Generator, side: int) -> Mask:
    """What hides a part: another outline, moved towards an edge."""
    other = _outline(rng, _single(rng), side)
    rows, columns = (round(side * rng.uniform(0.2, 0.7)) * rng.choice([-1, 1]) for _ in range(2))
    moved = np.zeros_like(other)
    y, x = slice(max(rows, 0), side + min(rows, 0)), slice(max(columns, 0), side + min(columns, 0))
    from_y, from_x = (
        slice(max(-rows, 0), side - max(rows, 0)),
        slice(max(-columns, 0), side - max(columns, 0)),
    )
    moved[y, x] = other[from_y, from_x]
    return moved


def _cut(rng: np.random.Generator, mask: Mask) -> Mask:
    """The mask without what lies beyond a picture's edge."""
    kept = mask.copy()
    gone = round(len(mask) * rng.uniform(0.1, 0.6))
    flipped = np.rot90(kept, int(rng.integers(4)))  # a view
    flipped[:gone] = False
    return kept


def _cuboid(rng: np.random.Generator) -> Points:
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    return _hull(_seen(rng, corners * rng.uniform(0.3, 1.0, 3)))


def _cylinder(rng: np.random.Generator) -> Points:
    height = rng.uniform(0.2, 1.5)
    rims = [
        np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE), np.full(len(_CIRCLE), z)], axis=1)
        for z in (-height, height)
    ]
    return _hull(_seen(rng, np.concatenate(rims)))


def _seen(rng: np.random.Generator, points: NDArray[np.float64]) -> Points:
    """Solid points (n, 3), z up, turned about the vertical and seen from 15 to 90 degrees above the horizon."""
    turn, above = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(15, 90))
    if rng.random() < 0.25:  # fallen over
        points = points[:, [2, 0, 1]]
    x = points[:, 0] * math.cos(turn) - points[:, 1] * math.sin(turn)
    y = points[:, 0] * math.sin(turn) + points[:, 1] * math.cos(turn)
    return np.stack([y * math.sin(above) - points[:, 2] * math.cos(above), x], axis=1)


def _rotated(rng: np.random.Generator, points: Points) -> Points:
    angle = rng.uniform(0, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, -sin], [sin, cos]])


def _fitted(rng: np.random.Generator, points: Points) -> Points:
    """Centred, and so large that the longer side takes 60 to 100 % of the square."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = rng.uniform(0.6, 1.0) / max((high - low).max() / 2, 1e-6)
    return (points - (low + high) / 2) * scale


def _hull(points: Points) -> Points:
    """Corners of the convex hull, in order (Andrew's monotone chain)."""
    ordered = sorted(map(tuple, points))

    def chain(corners: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        kept: list[tuple[float, ...]] = []
        for y, x in corners:
            while len(kept) > 1 and (kept[-1][0] - kept[-2][0]) * (x - kept[-2][1]) <= (
                kept[-1][1] - kept[-2][1]
            ) * (y - kept[-2][0]):
                kept.pop()
            kept.append((y, x))
        return kept[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def _filled(corners: Points, side: int) -> Mask:
    """Pixels whose centre lies inside the polygon, by the even-odd rule."""
    centers = (np.arange(side) + 0.5) * (2 / side) - 1
    inside = np.zeros((side, side), bool)
    for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 > centers) != (y1 > centers))
        crossing = x0 + (centers[rows] - y0) / (y1 - y0) * (x1 - x0) if len(rows) else rows
        inside[rows] ^= centers < crossing[:, None]
    return inside
