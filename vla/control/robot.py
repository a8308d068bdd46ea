"""What the control loop asks of an arm: joint states in, joint targets out, once per servo period."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from vla.control.channel import Layout, Message
from vla.control.limits import JointLimits
from vla.control.rotation import Vector

if TYPE_CHECKING:  # settings are read without loading a physics engine
    from vla.control.kinematics import ArmKinematics


@dataclass(frozen=True, slots=True)
class JointState:
    """The arm as measured.

    Attributes:
        joints: (joints,) rad.
        velocity: (joints,) rad/s.
        gripper: opening, 1 open, 0 closed.
        measured_at_s: on the clock of the control loop.
        fault: what the robot itself says is wrong with it, in words; empty when nothing is.
        gripper_force_n: how hard the fingers press; not a number where that is not measured.
    """

    joints: Vector
    velocity: Vector
    gripper: float
    measured_at_s: float
    fault: str = ""
    gripper_force_n: float = math.nan


class JointRobot(Protocol):
    """An arm driven by joint position targets. No call may wait for longer than a fraction of the servo period."""

    limits: JointLimits

    def snapshot_layout(self) -> Layout:
        """Returns the fields `snapshot` fills: what the policy's side needs to see what the robot sees."""
        ...

    def begin(self, scene: Message) -> ArmKinematics:
        """Takes a new episode as the policy's side set it up, and returns the arm's kinematics."""
        ...

    def read(self, now_s: float) -> JointState:
        """Returns the newest measurement."""
        ...

    def command(self, target: NDArray[Any]) -> None:
        """Sends (joints + 1,): joint targets in rad, then the gripper's opening."""
        ...

    def pass_time(self, periods: int) -> None:
        """Says that servo periods have gone by since the last command: a simulated arm moves on."""
        ...

    def snapshot(self) -> Mapping[str, Any]:
        """Returns what the policy's side is to see, as of the last `read`."""
        ...

    def hold(self) -> None:
        """Keeps the present position."""
        ...

    def close(self) -> None:
        """Leaves the arm safe."""
        ...
