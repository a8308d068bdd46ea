"""Reach: bring the tool to a point just above the named object and stay there."""

from __future__ import annotations

import numpy as np

from envs.objects import Shape
from envs.rotations import UP, Vector
from envs.scene import Scene
from envs.tasks.layout import Layout, draw_distractors, draw_specs
from envs.tasks.task import FirstObject, Goal, Outcome, object_focus, object_goals

HEIGHT_ABOVE_M = 0.06  # of the goal point over the object's centre
TOLERANCE_M = 0.025
_STAY_STEPS = 5


class Reach:
    name = "reach"
    max_steps = 40
    has_alternatives = True
    _NUM_OBJECTS = 3

    def arrange(self, scene: Scene, num_distractors: int, rng: np.random.Generator) -> None:
        specs = draw_specs(
            rng, [list(Shape)[int(rng.integers(len(Shape)))] for _ in range(self._NUM_OBJECTS)]
        )
        Layout(scene, rng).add_all([*specs, *draw_distractors(rng, num_distractors, specs)])

    def goals(self, scene: Scene) -> list[Goal]:
        return object_goals(scene, range(self._NUM_OBJECTS))

    def begin(self, scene: Scene, goal: Goal) -> None:
        self.goal = goal
        self._first = FirstObject(scene, goal, _STAY_STEPS)

    def judge(self, scene: Scene) -> Outcome:
        def is_near(slot: int) -> bool:
            distance = np.linalg.norm(scene.tool_position - point_above(scene, slot))
            return float(distance) < TOLERANCE_M

        return self._first.judge(is_near, otherwise=Outcome.RUNNING)

    def failure_at_timeout(self) -> str:
        return "timeout"

    def focus(self, scene: Scene) -> tuple[Vector, frozenset[int]]:
        return object_focus(scene, self.goal)


def point_above(scene: Scene, slot: int) -> Vector:
    """Returns (3,) m, the goal point over an object."""
    return scene.object_position(slot) + HEIGHT_ABOVE_M * UP
