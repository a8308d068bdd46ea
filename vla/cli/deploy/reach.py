"""Reaching for points above the table: a task that a real arm can do with its encoders alone."""

from __future__ import annotations

import numpy as np

from vla.control.rotation import Vector
from vla.types import END_EFFECTOR_DELTA_7D, ActionChunk, ActionSpec, Observation

_LOW_M, _HIGH_M = np.array([0.16, -0.14, 0.06]), np.array([0.28, 0.14, 0.20])
_NEAR_M = 0.012  # the tool is there when it is this near ...
_STAY_S = 0.4  # ... for this long
_LONGEST_S = 10.0
_GAIN = 0.4  # share of the way left that one action takes
_STEPS = 4


class ReachTask:
    """Draws targets, moves towards them (a policy) and says when one is reached.

    The policy is a proportional controller of the tool: it needs no pictures, knows where its target is, and sees the
    tool where the joints were measured, so that what the servos sag is made up for.
    """

    action_spec: ActionSpec = END_EFFECTOR_DELTA_7D
    camera_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.target: Vector = (_LOW_M + _HIGH_M) / 2
        self._began_s = self._near_since_s = float("nan")

    def reset(self, seed: int | None = None) -> None:
        """Draws the target that belongs to `seed`."""
        self.target = np.random.default_rng(seed).uniform(_LOW_M, _HIGH_M)
        self._began_s = self._near_since_s = float("nan")

    def act(self, observation: Observation) -> ActionChunk:
        """Returns a few steps towards the target."""
        way = self.target - observation.state[:3]
        actions = np.zeros((_STEPS, self.action_spec.width), np.float32)
        bound = self.action_spec.high[0]
        for action in actions:
            action[:3] = np.clip(_GAIN * way, -bound, bound)
            way = way - action[:3]
        actions[:, 6] = 1.0
        return ActionChunk(actions=actions, captured_at_s=observation.captured_at_s)

    def judge(self, position: Vector, now_s: float) -> str:
        """Returns "success", "not_reached" when the time is up, or "" while it goes on."""
        if not np.isfinite(self._began_s):
            self._began_s = now_s
        if np.linalg.norm(self.target - position) > _NEAR_M:
            self._near_since_s = float("nan")
        elif not np.isfinite(self._near_since_s):
            self._near_since_s = now_s
        if now_s - self._near_since_s >= _STAY_S:  # False while it is not a number
            return "success"
        return "not_reached" if now_s - self._began_s > _LONGEST_S else ""
