"""PlaceInBowl: put the named object into the bowl and let go; one is elongated, so the wrist has to turn."""

from __future__ import annotations

import numpy as np

from envs.fixtures import BOWL_OUTER_RADIUS_M, BOWL_RADIUS_M
from envs.objects import Shape
from envs.rotations import Vector
from envs.scene import Scene
from envs.tasks.layout import SEPARATION_M, Layout, draw_distractors, draw_specs
from envs.tasks.task import (
    FirstObject,
    Goal,
    GripHistory,
    Outcome,
    has_settled,
    is_out_of_reach,
    object_focus,
    object_goals,
)

_SETTLE_STEPS = 3
_BOWL_LOW_M, _BOWL_HIGH_M = np.array([0.42, -0.16]), np.array([0.58, 0.16])
_OBJECT_CLEARANCE_M = BOWL_OUTER_RADIUS_M + 0.5 * SEPARATION_M


class PlaceInBowl:
    name = "place_in_bowl"
    max_steps = 80
    has_alternatives = True
    _NUM_OBJECTS = 2

    def arrange(self, scene: Scene, num_distractors: int, rng: np.random.Generator) -> None:
        layout = Layout(scene, rng)
        bowl = layout.free_place(_BOWL_LOW_M, _BOWL_HIGH_M)
        scene.show_fixture("bowl", bowl)
        layout.reserve(bowl, _OBJECT_CLEARANCE_M)
        other = [Shape.CUBE, Shape.CYLINDER, Shape.BLOCK][int(rng.integers(3))]
        specs = draw_specs(rng, [Shape.BLOCK, other])
        layout.add_all([*specs, *draw_distractors(rng, num_distractors, specs)])

    def goals(self, scene: Scene) -> list[Goal]:
        return object_goals(scene, range(self._NUM_OBJECTS))

    def begin(self, scene: Scene, goal: Goal) -> None:
        self.goal = goal
        self._first = FirstObject(scene, goal, _SETTLE_STEPS)
        self._grip = GripHistory(goal.target)

    def judge(self, scene: Scene) -> Outcome:
        self._grip.update(scene)
        lost = is_out_of_reach(scene, self.goal.target)
        return self._first.judge(
            lambda slot: is_in_bowl(scene, slot) and has_settled(scene, slot),
            otherwise=Outcome.DROPPED if lost else Outcome.RUNNING,
        )

    def failure_at_timeout(self) -> str:
        return "dropped" if self._grip.was_dropped else "timeout"

    def focus(self, scene: Scene) -> tuple[Vector, frozenset[int]]:
        return object_focus(scene, self.goal)


def is_in_bowl(scene: Scene, slot: int) -> bool:
    """Whether the object's centre is between the bowl's walls and no higher than their rim."""
    offset = scene.object_position(slot) - scene.fixture_position("bowl")
    return float(np.linalg.norm(offset[:2])) < BOWL_RADIUS_M - 0.005 and offset[2] < 0.045
