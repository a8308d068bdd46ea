"""Which robot is driven, and where its tool may go."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from vla.control.config import ControlConfig
from vla.control.limits import JOINT_LIMITS, Workspace
from vla.errors import ConfigError, unknown_name
from vla.robots.ik_config import InverseKinematicsConfig


class RobotKind(Enum):
    """What is behind the joint commands."""

    SIM = "sim"  # a simulated arm, stepped in real time inside the control process
    LEROBOT = "lerobot"  # a real arm, or its twin, through LeRobot's driver in a process of its own


@dataclass(kw_only=True)
class RobotConfig:
    """One robot and its workspace (base frame, m and rad)."""

    kind: RobotKind = RobotKind.SIM  # what is behind the joint commands
    arm: str = "panda"  # whose joint limits apply; one of vla.control.limits.JOINT_LIMITS
    driver: str = ""  # LeRobot's name of the arm, e.g. so101_follower (kind=lerobot, as all below)
    port: str = ""  # serial port of the arm
    id: str = ""  # name of its calibration file
    calibration_dir: str = ""  # folder of that file; empty: LeRobot's own
    cameras: list[str] = field(
        default_factory=list[str]
    )  # NAME=zmq://HOST:PORT or NAME=opencv:/dev/video0
    max_frame_age_ms: float = (
        700.0  # the same picture for this long: the camera is named and the arm held
    )
    servo_hz: float = (
        0.0  # most targets per second that its bus takes; 0 = as many as the loop gives
    )
    max_tracking_error_rad: float = 0.0  # how far its servos may sag; 0 = as set in control.safety
    max_state_age_ms: float = 0.0  # oldest reading to go by; 0 = as set in control.safety
    kinematics: InverseKinematicsConfig = field(
        default_factory=InverseKinematicsConfig
    )  # how a tool pose becomes joints
    approach_speed_rad_s: float = 0.5  # of the ways to the first pose and to where it is parked
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
        if self.kind is RobotKind.LEROBOT and not (self.driver and self.id):
            raise ConfigError("robot.kind=lerobot needs robot.driver and robot.id; use robot=so101")
        if self.approach_speed_rad_s <= 0:
            raise ConfigError(
                f"robot.approach_speed_rad_s must be positive; got {self.approach_speed_rad_s}"
            )
        self.workspace()

    def adapt(self, control: ControlConfig) -> ControlConfig:
        """Returns the settings of the loop with what this robot cannot do otherwise: its rate, its servos' sag."""
        safety = replace(
            control.safety,
            max_tracking_error_rad=self.max_tracking_error_rad
            or control.safety.max_tracking_error_rad,
            max_state_age_ms=self.max_state_age_ms or control.safety.max_state_age_ms,
        )
        servo_hz = min(control.servo_hz, self.servo_hz or control.servo_hz)
        return replace(control, servo_hz=servo_hz, safety=safety)

    def workspace(self) -> Workspace:
        """Returns the workspace as the safety layer takes it; raises ConfigError when it is empty."""
        low, high = (
            (float(x), float(y), float(z))
            for x, y, z in (self.workspace_low_m, self.workspace_high_m)
        )
        return Workspace(
            low=low, high=high, max_tilt_rad=self.max_tilt_rad, max_yaw_rad=self.max_yaw_rad
        )
