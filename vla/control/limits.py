"""What an arm may do, as tables with their sources. Angles in rad, lengths in m, rates per second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.control.rotation import Pose, Vector, from_rpy, to_rpy
from vla.errors import ConfigError, unknown_name

STRAIGHT_DOWN = np.diag(
    [1.0, -1.0, -1.0]
)  # base_from_tool of a tool that points down, its x axis along the base's


@dataclass(frozen=True, kw_only=True)
class JointLimits:
    """Limits of every joint of one arm.

    Attributes:
        names: joint names, in the order of every joint vector.
        low, high: rad.
        velocity: rad/s, both directions.
        acceleration: rad/s^2, speeding up and braking alike.
        torque: N m, for reference; a position command cannot bound it.
        source: where the numbers are published.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    torque: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        rows = (self.low, self.high, self.velocity, self.acceleration, self.torque)
        if any(len(row) != len(self.names) for row in rows):
            raise ConfigError(
                f"joint limits need one number per joint and row; joints are {', '.join(self.names)}"
            )
        for name, low, high, velocity, acceleration in zip(self.names, *rows[:4], strict=True):
            if not (low < high and velocity > 0 and acceleration > 0):
                raise ConfigError(
                    f"limits of {name} are empty: [{low}, {high}] rad, {velocity} rad/s, {acceleration} rad/s^2"
                )

    @property
    def num_joints(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where the tool may be: an upright box in the base frame, and how far it may turn from pointing straight down.

    Attributes:
        low, high: corners, m.
        max_tilt_rad: roll and pitch, either way, from the tool pointing down.
        max_yaw_rad: about the vertical, either way, from the tool's x axis pointing along the base's.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    max_tilt_rad: float
    max_yaw_rad: float

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ConfigError(
                f"the workspace from {self.low} to {self.high} m is empty; give low < high on each axis"
            )
        if self.max_tilt_rad < 0 or self.max_yaw_rad < 0:
            raise ConfigError(
                f"tilt and yaw limits must be 0 or more; got {self.max_tilt_rad} and {self.max_yaw_rad} rad"
            )

    def clamp(self, pose: Pose) -> Pose:
        """Returns the permitted pose nearest to `pose`, axis by axis."""
        roll, pitch, yaw = to_rpy(pose.rotation @ STRAIGHT_DOWN.T)
        tilt, turn = self.max_tilt_rad, self.max_yaw_rad
        allowed = (_clip(roll, tilt), _clip(pitch, tilt), _clip(yaw, turn))
        turned = (
            pose.rotation if allowed == (roll, pitch, yaw) else from_rpy(*allowed) @ STRAIGHT_DOWN
        )
        return Pose(np.clip(pose.position, self.low, self.high), turned)

    def excess(self, position: Vector) -> tuple[str, float, float]:
        """Returns (axis, how far beyond the box in m, the bound it is beyond) of the worst axis; 0 when inside."""
        over = np.maximum(np.asarray(self.low) - position, position - np.asarray(self.high))
        axis = int(np.argmax(over))
        bound = self.low[axis] if position[axis] < self.low[axis] else self.high[axis]
        return "xyz"[axis], max(0.0, float(over[axis])), bound


PANDA = JointLimits(
    names=("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "joint7"),
    low=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    high=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    # A quarter of what the controller of the arm accepts (15, 7.5, 10, 12.5, 15, 20, 20): at servo rates of 50 to
    # 500 Hz the jerk limits (7500 rad/s^3 and so on) never bind, so acceleration is what keeps the motion gentle.
    acceleration=(3.75, 1.875, 2.5, 3.125, 3.75, 5.0, 5.0),
    torque=(87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0),
    source="Franka Control Interface documentation and libfranka rate_limiting.h; acceleration: panda_moveit_config",
)

JOINT_LIMITS: dict[str, JointLimits] = {"panda": PANDA}


def joint_limits(name: str) -> JointLimits:
    """Returns the limits of the arm called `name`; raises ConfigError naming the choices."""
    if name not in JOINT_LIMITS:
        raise ConfigError(unknown_name("arm", name, JOINT_LIMITS))
    return JOINT_LIMITS[name]


def _clip(value: float, bound: float) -> float:
    return min(bound, max(-bound, value))
