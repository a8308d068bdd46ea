"""OpenDrawer: hook the bar handle of a small cabinet and pull its drawer open."""

from __future__ import annotations

import numpy as np

from envs.objects import Shape
from envs.rotations import Vector
from envs.scene import Scene
from envs.tasks.layout import Layout, draw_distractors
from envs.tasks.task import Goal, Outcome, Streak

OPEN_M = 0.10
_SETTLE_STEPS = 5
_CABINET_LOW_M, _CABINET_HIGH_M = np.array([0.31, -0.10]), np.array([0.35, 0.10])
_MAX_YAW_RAD = 0.35


class OpenDrawer:
    name = "open_drawer"
    max_steps = 60
    has_alternatives = False

    def arrange(self, scene: Scene, num_distractors: int, rng: np.random.Generator) -> None:
        layout = Layout(scene, rng)
        place = layout.free_place(_CABINET_LOW_M, _CABINET_HIGH_M)
        # Turned towards the middle of the table, so that the open drawer stays within reach.
        yaw = rng.uniform(-_MAX_YAW_RAD, _MAX_YAW_RAD) - 0.5 * place[1]
        scene.show_fixture("cabinet", place, yaw)
        middle_of_path = place + 0.20 * np.array([np.cos(yaw), np.sin(yaw)])
        layout.reserve(middle_of_path, 0.19)
        layout.reserve(place, 0.17)
        layout.add_all(
            [
                spec
                for spec in draw_distractors(rng, num_distractors, [])
                if spec.shape is not Shape.BLOCK
            ]
        )

    def goals(self, scene: Scene) -> list[Goal]:
        return [Goal(words={"object": "drawer"})]

    def begin(self, scene: Scene, goal: Goal) -> None:
        self.goal = goal
        self._stayed_open = Streak(_SETTLE_STEPS)

    def judge(self, scene: Scene) -> Outcome:
        return (
            Outcome.SUCCESS
            if self._stayed_open.update(scene.drawer_opening_m >= OPEN_M)
            else Outcome.RUNNING
        )

    def failure_at_timeout(self) -> str:
        return "timeout"

    def focus(self, scene: Scene) -> tuple[Vector, frozenset[int]]:
        return scene.handle_position, scene.handle_geoms
