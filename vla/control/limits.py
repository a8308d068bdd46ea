"""What an arm may do, as tables with their sources. Angles in rad, lengths in m, rates per second."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vla.control.rotation import Pose, Vector, from_rpy, to_rpy
from vla.errors import ConfigError, unknown_name

STRAIGHT_DOWN = np.diag(
    [1.0, -1.0, -1.0]
)  # base_from_tool of a tool that points down, its x axis along the base's


@dataclass(frozen=True, kw_only=True)
class ToolLimits:
    """How fast the tool centre may go: m/s, and rad/s about any axis; and where that is published."""

    speed_m_s: float
    turn_rad_s: float
    source: str


@dataclass(frozen=True, kw_only=True)
class GripperLimits:
    """Width of the open gripper (m), how hard its fingers may press (N), and where that is published."""

    width_m: float
    force_n: float
    source: str


@dataclass(frozen=True, kw_only=True)
class JointLimits:
    """Limits of one arm: of every joint, of its tool and of its gripper.

    Attributes:
        names: joint names, in the order of every joint vector.
        low, high: rad.
        velocity: rad/s, both directions.
        acceleration: rad/s^2, speeding up and braking alike.
        torque: N m, for reference; a position command cannot bound it.
        source: where the numbers are published.
        jerk: rad/s^3; None where none is published.
        tool, gripper: None where nothing is published; then nothing is checked.
        rated_velocity: rad/s, what the motors themselves do; given where `velocity`, which commands keep, is far less,
            because position servos run faster for a moment when they catch up. Measurements are judged by it.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    torque: tuple[float, ...]
    source: str
    jerk: tuple[float, ...] | None = None
    tool: ToolLimits | None = None
    gripper: GripperLimits | None = None
    rated_velocity: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        rows = [self.low, self.high, self.velocity, self.acceleration, self.torque]
        rows += [row for row in (self.jerk, self.rated_velocity) if row is not None]
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


_FRANKA_HAND = GripperLimits(
    width_m=0.08,
    force_n=70.0,  # what it may press with for long; 140 N for a moment
    source="Franka Hand data sheet",
)

PANDA = JointLimits(
    names=("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "joint7"),
    low=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    high=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    # A quarter of what the controller of the arm accepts (15, 7.5, 10, 12.5, 15, 20, 20): this keeps motion gentle,
    # and a full reversal within one tick of 1 ms or more stays below the jerk limit.
    acceleration=(3.75, 1.875, 2.5, 3.125, 3.75, 5.0, 5.0),
    jerk=(7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
    torque=(87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0),
    tool=ToolLimits(speed_m_s=1.7, turn_rad_s=2.5, source="libfranka rate_limiting.h"),
    gripper=_FRANKA_HAND,
    source="Franka Control Interface documentation and libfranka rate_limiting.h; acceleration: panda_moveit_config",
)

FR3 = JointLimits(
    names=tuple(f"fr3_joint{i}" for i in range(1, 8)),
    # The arm's velocity limits fall towards the ends of its range, as -v_off + sqrt(2 a (q_max - q)). Its maker's own
    # simplification is this narrower range, inside which these velocities hold everywhere.
    low=(-2.3093, -1.5133, -2.4937, -2.7478, -2.4800, 0.8521, -2.6895),
    high=(2.3093, 1.5133, 2.4937, -0.4461, 2.4800, 4.2094, 2.6895),
    velocity=(2.0, 1.0, 1.5, 1.25, 3.0, 1.5, 3.0),
    acceleration=(2.5,) * 7,  # a quarter of what the controller accepts, as for the Panda
    jerk=(5000.0,) * 7,
    torque=(87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0),
    tool=ToolLimits(speed_m_s=3.0, turn_rad_s=2.5, source="Franka Control Interface documentation"),
    gripper=_FRANKA_HAND,
    source="franka_ros franka_description/robots/fr3/joint_limits.yaml; acceleration and jerk: libfranka",
)

UR5E = JointLimits(
    names=(
        "shoulder_pan_joint",
        "shoulder_lift_joint",
        "elbow_joint",
        "wrist_1_joint",
        "wrist_2_joint",
        "wrist_3_joint",
    ),
    # The elbow's own range is twice as large, but the upper arm is in its way.
    low=(-2 * math.pi, -2 * math.pi, -math.pi, -2 * math.pi, -2 * math.pi, -2 * math.pi),
    high=(2 * math.pi, 2 * math.pi, math.pi, 2 * math.pi, 2 * math.pi, 2 * math.pi),
    velocity=(math.pi,) * 6,
    acceleration=(math.pi,) * 6,  # not published; what its ROS description plans with
    torque=(150.0, 150.0, 150.0, 28.0, 28.0, 28.0),
    tool=ToolLimits(
        speed_m_s=1.0, turn_rad_s=math.pi, source="UR5e data sheet: typical tool speed; wrist speed"
    ),
    gripper=GripperLimits(width_m=0.085, force_n=235.0, source="Robotiq 2F-85 data sheet"),
    source="Universal_Robots_ROS2_Description config/ur5e/joint_limits.yaml, after the UR5e user manual",
)

SO101 = JointLimits(
    names=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"),
    low=(-1.91986, -1.74533, -1.69, -1.65806, -2.74385),
    high=(1.91986, 1.74533, 1.69, 1.65806, 2.84121),
    # Less than half the no-load speed of an STS3215 (45 rpm, 4.71 rad/s): a loaded motor still keeps up.
    velocity=(2.0, 2.0, 2.0, 2.0, 2.0),
    rated_velocity=(4.71, 4.71, 4.71, 4.71, 4.71),
    # A quarter of the motor's largest acceleration register, 254 x 100 counts/s^2 = 39 rad/s^2.
    acceleration=(10.0, 10.0, 10.0, 10.0, 10.0),
    torque=(2.94, 2.94, 2.94, 2.94, 2.94),
    tool=ToolLimits(
        speed_m_s=0.8,
        turn_rad_s=4.0,
        source="not published: two joints at full speed, 0.4 m of reach",
    ),
    gripper=GripperLimits(
        width_m=0.123,
        force_n=39.0,
        source="chord and stall torque (2.94 N m) of the moving jaw, 0.075 m long",
    ),
    source="range: so101_new_calib.xml of TheRobotStudio/SO-ARM100; speed and torque: STS3215 data sheet, 12 V",
)

JOINT_LIMITS: dict[str, JointLimits] = {"panda": PANDA, "fr3": FR3, "ur5e": UR5E, "so101": SO101}


def joint_limits(name: str) -> JointLimits:
    """Returns the limits of the arm called `name`; raises ConfigError naming the choices."""
    if name not in JOINT_LIMITS:
        raise ConfigError(unknown_name("arm", name, JOINT_LIMITS))
    return JOINT_LIMITS[name]


def _clip(value: float, bound: float) -> float:
    return min(bound, max(-bound, value))
