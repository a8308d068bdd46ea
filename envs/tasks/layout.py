"""Where things lie: draws places, yaws, shapes and colours for the objects of an episode."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from envs.objects import COLORS, ObjectSpec, Shape
from envs.rotations import Vector
from envs.scene import Scene

TABLE_LOW_M = np.array([0.36, -0.18])
TABLE_HIGH_M = np.array([0.60, 0.18])
SEPARATION_M = 0.09  # between centres of objects, so that the open gripper fits around each
_ATTEMPTS = 200


class Layout:
    """Fills one table without overlaps; a place once taken keeps its clearance for all that follow."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self._scene = scene
        self._rng = rng
        self._taken: list[tuple[Vector, float]] = []

    def reserve(self, xy: Vector, clearance_m: float) -> None:
        """Keeps objects' centres at least `clearance_m` away from `xy` (2,)."""
        self._taken.append((xy, clearance_m))

    def free_place(
        self,
        low: Vector = TABLE_LOW_M,
        high: Vector = TABLE_HIGH_M,
        clearance_m: float = SEPARATION_M,
    ) -> Vector:
        """Returns a uniform place (2,) m in the box that keeps every clearance, or the best of many tries."""
        tries = self._rng.uniform(low, high, size=(_ATTEMPTS, 2))
        margin = np.full(_ATTEMPTS, np.inf)
        for xy, clearance in self._taken:
            margin = np.minimum(
                margin, np.linalg.norm(tries - xy, axis=1) - max(clearance, clearance_m)
            )
        fits = margin >= 0.0
        return tries[int(np.argmax(fits))] if fits.any() else tries[int(np.argmax(margin))]

    def add(self, spec: ObjectSpec, max_yaw_rad: float = math.pi) -> int:
        """Lays one object on a free place and returns its slot."""
        place = self.free_place()
        self.reserve(place, SEPARATION_M)
        return self._scene.add_object(spec, place, self._rng.uniform(-max_yaw_rad, max_yaw_rad))

    def add_all(self, specs: Sequence[ObjectSpec], max_yaw_rad: float = math.pi) -> None:
        for spec in specs:
            self.add(spec, max_yaw_rad)


def draw_specs(rng: np.random.Generator, shapes: Sequence[Shape]) -> list[ObjectSpec]:
    """Returns one object per shape, all of different colours."""
    colors = rng.permutation(list(COLORS))
    return [
        ObjectSpec(shape=shape, color=str(color))
        for shape, color in zip(shapes, colors, strict=False)
    ]


def draw_distractors(
    rng: np.random.Generator, count: int, used: Sequence[ObjectSpec]
) -> list[ObjectSpec]:
    """Returns up to `count` objects whose names differ from those in `used` and from each other.

    Colours may repeat: "the red cube" is then told from a red cylinder by its shape alone.
    """
    names = {spec.name for spec in used}
    everything = [ObjectSpec(shape=shape, color=color) for shape in Shape for color in COLORS]
    free = [spec for spec in everything if spec.name not in names]
    picked = rng.permutation(len(free))[: int(rng.integers(count + 1)) if count else 0]
    return [free[int(index)] for index in picked]
