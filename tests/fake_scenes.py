"""Labelled pictures of coloured squares, drawn in a moment, with the rows' real type."""

import io

import numpy as np
from PIL import Image

from vla.data.scene_rows import SceneObject, SceneQuestion, SceneRow

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230)}


def fake_scene(seed: int, *, size: int = 32, num_frames: int = 1) -> SceneRow:
    """One or two squares on a grey table; their places and colours follow from the seed."""
    rng = np.random.default_rng(seed)
    picture = np.full((size, size, 3), 120, np.uint8)
    objects = []
    colors = list(rng.permutation(list(COLORS)))[: int(rng.integers(1, 3))]
    for place, color in enumerate(colors):
        side = size // 4
        top = int(rng.integers(0, size - side + 1))
        left = place * (size // 2) + int(rng.integers(0, size // 2 - side + 1))
        picture[top : top + side, left : left + side] = COLORS[color]
        mask = np.zeros((size, size), bool)
        mask[top : top + side, left : left + side] = True
        objects.append(
            SceneObject(
                name=f"{color} cube",
                color=str(color),
                shape="cube",
                box=(top / size, left / size, (top + side) / size, (left + side) / size),
                mask_png=_png(mask),
                num_pixels=int(mask.sum()),
                is_clear=True,
                phrases=(f"the {color} cube",),
            )
        )
    names = [item.name for item in objects]
    return SceneRow(
        frames=np.stack([picture.transpose(2, 0, 1)] * num_frames),
        camera="front",
        scene_seed=seed,
        kind="still" if num_frames == 1 else "clip",
        objects=tuple(objects),
        captions=(f"a table with a {' and a '.join(names)}",),
        questions=(
            SceneQuestion(
                kind="count", question="how many cubes are there?", answer=str(len(names))
            ),
            SceneQuestion(
                kind="color", question="what color is the cube on the left?", answer=colors[0]
            ),
            SceneQuestion(
                kind="count",
                question="count all of the cubes",
                answer=str(len(names)),
                split="held_out",
            ),
        ),
    )


def fake_scenes(count: int, *, first_seed: int = 0, size: int = 32) -> list[SceneRow]:
    """Rows of neighbouring seeds."""
    return [fake_scene(first_seed + number, size=size) for number in range(count)]


def _png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()
