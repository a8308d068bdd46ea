"""Which robot is driven, and where its tool may go."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vla.control.limits import JOINT_LIMITS, Workspace
from vla.errors import ConfigError, unknown_name


class RobotKind(Enum):
    """What is behind the joint commands."""

    SIM = "sim"  # a simulated arm, stepped in real time inside the control process


@dataclass(kw_only=True)
class RobotConfig:
    """One robot and its workspace (base frame, m and rad)."""

    kind: RobotKind = RobotKind.SIM  # what is behind the joint commands
    arm: str = "panda"  # whose joint limits apply; one of vla.control.limits.JOINT_LIMITS
    workspace_low_m: list[float] = field(
        default_factory=lambda: [0.26, -0.34, 0.012]
    )  # x, y, z of the tool centre
    workspace_high_m: list[float] = field(default_factory=lambda: [0.74, 0.34, 0.42])  # x, y, z
    max_tilt_rad: float = 0.4  # roll and pitch from pointing straight down
    max_yaw_rad: float = 1.6  # about the vertical

    def __post_init__(self) -> None:
        if self.arm not in JOINT_LIMITS:
            raise ConfigError(unknown_name("arm", self.arm, JOINT_LIMITS))
        for name in ("workspace_low_m", "workspace_high_m"):
            if len(getattr(self, name)) != 3:
                raise ConfigError(f"robot.{name} needs x, y and z; got {list(getattr(self, name))}")
        self.workspace()

    def workspace(self) -> Workspace:
        """Returns the workspace as the safety layer takes it; raises ConfigError when it is empty."""
        low, high = (
            (float(x), float(y), float(z))
            for x, y, z in (self.workspace_low_m, self.workspace_high_m)
        )
        return Workspace(
            low=low, high=high, max_tilt_rad=self.max_tilt_rad, max_yaw_rad=self.max_yaw_rad
        )
