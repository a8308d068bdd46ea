"""Stack: set the first named cube on the second and let go of it."""

from __future__ import annotations

import numpy as np

from envs.objects import Shape
from envs.rotations import Vector
from envs.scene import Scene
from envs.tasks.layout import Layout, draw_distractors, draw_specs
from envs.tasks.task import (
    Goal,
    GripHistory,
    Outcome,
    Streak,
    has_settled,
    is_out_of_reach,
    object_focus,
)

_SETTLE_STEPS = 4
_ELEVATED_M = 0.03  # resting higher than this means resting on something


class Stack:
    name = "stack"
    max_steps = 100
    has_alternatives = True
    _NUM_CUBES = 3

    def arrange(self, scene: Scene, num_distractors: int, rng: np.random.Generator) -> None:
        cubes = draw_specs(rng, [Shape.CUBE] * self._NUM_CUBES)
        Layout(scene, rng).add_all([*cubes, *draw_distractors(rng, num_distractors, cubes)])

    def goals(self, scene: Scene) -> list[Goal]:
        cubes = range(self._NUM_CUBES)
        return [
            Goal(
                target=upper,
                reference=lower,
                words={"object": scene.objects[upper].name, "reference": scene.objects[lower].name},
            )
            for upper in cubes
            for lower in cubes
            if upper != lower
        ]

    def begin(self, scene: Scene, goal: Goal) -> None:
        self.goal = goal
        self._stands = {slot: Streak(_SETTLE_STEPS) for slot in range(len(scene.objects))}
        self._grip = GripHistory(goal.target)

    def judge(self, scene: Scene) -> Outcome:
        target, reference = self.goal.target, self.goal.reference
        self._grip.update(scene)
        lost = is_out_of_reach(scene, target) or is_out_of_reach(scene, reference)
        outcome = Outcome.DROPPED if lost else Outcome.RUNNING
        for slot, streak in self._stands.items():
            is_elevated = scene.object_height(slot) > _ELEVATED_M
            if streak.update(is_elevated and has_settled(scene, slot)):
                as_asked = slot == target and is_on(scene, target, reference)
                outcome = Outcome.SUCCESS if as_asked else Outcome.WRONG_OBJECT
        return outcome

    def failure_at_timeout(self) -> str:
        return "dropped" if self._grip.was_dropped else "timeout"

    def focus(self, scene: Scene) -> tuple[Vector, frozenset[int]]:
        return object_focus(scene, self.goal)


def is_on(scene: Scene, upper: int, lower: int) -> bool:
    """Whether one object rests on the other, their centres less than half a cube apart."""
    offset = scene.object_position(upper) - scene.object_position(lower)
    height = (
        scene.objects[upper].geometry.half_height_m + scene.objects[lower].geometry.half_height_m
    )
    return float(np.linalg.norm(offset[:2])) < 0.02 and abs(offset[2] - height) < 0.008
