"""PickCube: three cubes of different colours; lift the named one and keep hold of it."""

from __future__ import annotations

import numpy as np

from envs.objects import Shape
from envs.rotations import Vector
from envs.scene import Scene
from envs.tasks.layout import Layout, draw_distractors, draw_specs
from envs.tasks.task import (
    FirstObject,
    Goal,
    GripHistory,
    Outcome,
    is_out_of_reach,
    object_focus,
    object_goals,
)

LIFT_M = 0.05
_SETTLE_STEPS = 5  # half a second in the air
_MAX_YAW_RAD = 0.35  # small, so that turning the wrist helps but is not needed


class PickCube:
    name = "pick_cube"
    max_steps = 60
    has_alternatives = True
    _NUM_CUBES = 3

    def arrange(self, scene: Scene, num_distractors: int, rng: np.random.Generator) -> None:
        cubes = draw_specs(rng, [Shape.CUBE] * self._NUM_CUBES)
        Layout(scene, rng).add_all(
            [*cubes, *draw_distractors(rng, num_distractors, cubes)], _MAX_YAW_RAD
        )

    def goals(self, scene: Scene) -> list[Goal]:
        return object_goals(scene, range(self._NUM_CUBES))

    def begin(self, scene: Scene, goal: Goal) -> None:
        self.goal = goal
        self._first = FirstObject(scene, goal, _SETTLE_STEPS)
        self._grip = GripHistory(goal.target)

    def judge(self, scene: Scene) -> Outcome:
        self._grip.update(scene)
        lost = is_out_of_reach(scene, self.goal.target)
        return self._first.judge(
            lambda slot: scene.object_height(slot) >= LIFT_M and scene.is_held(slot),
            otherwise=Outcome.DROPPED if lost else Outcome.RUNNING,
        )

    def failure_at_timeout(self) -> str:
        return "dropped" if self._grip.was_dropped else "timeout"

    def focus(self, scene: Scene) -> tuple[Vector, frozenset[int]]:
        return object_focus(scene, self.goal)
