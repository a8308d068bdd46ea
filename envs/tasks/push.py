"""Push: slide the named object into the marked square."""

from __future__ import annotations

import numpy as np

from envs.fixtures import ZONE_HALF_SIDE_M
from envs.objects import Shape
from envs.rotations import Vector
from envs.scene import Scene
from envs.tasks.layout import Layout, draw_distractors, draw_specs
from envs.tasks.task import (
    FirstObject,
    Goal,
    Outcome,
    has_settled,
    is_out_of_reach,
    object_focus,
    object_goals,
)

_SETTLE_STEPS = 3
_ZONE_LOW_M, _ZONE_HIGH_M = np.array([0.42, -0.12]), np.array([0.56, 0.12])
_OBJECT_CLEARANCE_M = 0.13  # between an object and the middle of the square


class Push:
    name = "push"
    max_steps = 80
    has_alternatives = True
    _NUM_OBJECTS = 2

    def arrange(self, scene: Scene, num_distractors: int, rng: np.random.Generator) -> None:
        layout = Layout(scene, rng)
        zone = layout.free_place(_ZONE_LOW_M, _ZONE_HIGH_M)
        scene.show_fixture("zone", zone)
        layout.reserve(zone, _OBJECT_CLEARANCE_M)
        shapes = [
            [Shape.CUBE, Shape.CYLINDER][int(rng.integers(2))] for _ in range(self._NUM_OBJECTS)
        ]
        specs = draw_specs(rng, shapes)
        layout.add_all([*specs, *draw_distractors(rng, num_distractors, specs)])

    def goals(self, scene: Scene) -> list[Goal]:
        return object_goals(scene, range(self._NUM_OBJECTS))

    def begin(self, scene: Scene, goal: Goal) -> None:
        self.goal = goal
        self._first = FirstObject(scene, goal, _SETTLE_STEPS)

    def judge(self, scene: Scene) -> Outcome:
        lost = is_out_of_reach(scene, self.goal.target)
        return self._first.judge(
            lambda slot: is_in_zone(scene, slot) and has_settled(scene, slot),
            otherwise=Outcome.DROPPED if lost else Outcome.RUNNING,
        )

    def failure_at_timeout(self) -> str:
        return "timeout"

    def focus(self, scene: Scene) -> tuple[Vector, frozenset[int]]:
        return object_focus(scene, self.goal)


def is_in_zone(scene: Scene, slot: int) -> bool:
    """Whether the object's centre is over the square and the object on the table."""
    offset = np.abs(scene.object_position(slot) - scene.fixture_position("zone"))
    return bool(offset[:2].max() < ZONE_HALF_SIDE_M - 0.005) and scene.object_height(slot) < 0.01
