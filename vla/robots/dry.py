"""A robot that is asked for everything and told nothing: the rehearsal of a drive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.channel import Layout, Message
from vla.control.robot import JointRobot, JointState


class DryRobot:
    """Passes questions on to a robot and keeps commands to itself (vla.control.robot.JointRobot)."""

    def __init__(self, robot: JointRobot) -> None:
        self.limits = robot.limits
        self._robot = robot
        self.num_commands = 0

    def snapshot_layout(self) -> Layout:
        return self._robot.snapshot_layout()

    def begin(self, scene: Message) -> Any:
        return self._robot.begin(scene)

    def read(self, now_s: float) -> JointState:
        """Returns the measurement, joints that lean on their stops taken as just inside their range."""
        state = self._robot.read(now_s)
        inside = np.clip(state.joints, self.limits.low, self.limits.high)
        return replace(state, joints=inside) if np.isfinite(inside).all() else state

    def command(self, target: NDArray[Any]) -> None:
        """Counts a command that would have been sent."""
        del target
        self.num_commands += 1

    def pass_time(self, periods: int) -> None:
        self._robot.pass_time(periods)

    def snapshot(self) -> Mapping[str, Any]:
        return self._robot.snapshot()

    def hold(self) -> None:
        """Sends nothing."""

    def close(self) -> None:
        self._robot.close()
