"""Labelled pictures of two coloured shapes each, so many kinds of them that captions tell pictures apart."""

from __future__ import annotations

import numpy as np

from vla.data.scene_rows import SceneObject, SceneQuestion, SceneRow, encode_png

COLORS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (40, 60, 220),
    "yellow": (220, 210, 40),
}
_EXTENT = {"square": (10, 10), "bar": (16, 5)}  # rows, columns of 32


def scene_rows(count: int, *, size: int = 32, first_seed: int = 0) -> list[SceneRow]:
    """Returns one still a scene."""
    return [scene_row(first_seed + index, size) for index in range(count)]


def scene_row(seed: int, size: int = 32) -> SceneRow:
    """Returns a picture with one thing on the left and one on the right; everything follows from the seed."""
    rng = np.random.default_rng(seed)
    picture = np.full((size, size, 3), 128, np.uint8)
    picture += rng.integers(0, 12, picture.shape, dtype=np.uint8)
    objects = [_object(picture, half, rng) for half in range(2)]
    names = [item.name for item in objects]
    question = SceneQuestion(kind="color", question="what is on the left", answer=names[0])
    return SceneRow(
        frames=picture.transpose(2, 0, 1)[None],
        camera="front",
        scene_seed=seed,
        kind="still",
        objects=tuple(objects),
        captions=(
            f"a {names[0]} on the left and a {names[1]} on the right",
            f"a {names[1]} right of a {names[0]}",
        ),
        questions=(question,),
    )


def _object(picture: np.ndarray, half: int, rng: np.random.Generator) -> SceneObject:
    """Paints a shape into one half of the picture."""
    size = len(picture)
    color, shape = str(rng.choice(list(COLORS))), str(rng.choice(list(_EXTENT)))
    height, width = (side * size // 32 for side in _EXTENT[shape])
    top = int(rng.integers(0, size - height))
    left = half * size // 2 + int(rng.integers(0, size // 2 - width + 1))
    mask = np.zeros((size, size), bool)
    mask[top : top + height, left : left + width] = True
    picture[mask] = COLORS[color]
    return SceneObject(
        name=f"{color} {shape}",
        color=color,
        shape=shape,
        box=(top / size, left / size, (top + height) / size, (left + width) / size),
        mask_png=encode_png(mask),
        num_pixels=int(mask.sum()),
        is_clear=True,
        phrases=(f"the {color} {shape}",),
    )
