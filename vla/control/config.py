"""Settings of the control loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla.control.checks import Check, checks_by_name
from vla.control.realtime import RealtimeConfig
from vla.control.safety import SafetyConfig
from vla.control.schedule import Schedule
from vla.errors import ConfigError


@dataclass(kw_only=True)
class ControlConfig:
    """Rates, scheduling and safety of the control loop."""

    servo_hz: float = 100.0  # joint targets per second, 50 to 500
    schedule: Schedule = Schedule.ASYNCHRONOUS  # how action chunks are carried out
    gripper_pause: bool = True  # the arm stands for one action when the gripper turns
    ensemble_decay: float = (
        0.01  # ACT's m: weight exp(-m i), i = 0 for the oldest (temporal_ensemble)
    )
    max_action_age_ms: float = (
        150.0  # an action may begin only while its observation is at most this old, else hold
    )
    leash_m: float = (
        0.03  # how far the tool's target may lead the measured tool when an action begins
    )
    leash_rad: float = 0.3  # the same for its orientation
    safety: SafetyConfig = field(default_factory=SafetyConfig)  # what is refused, clipped or held
    disabled_checks: list[str] = field(
        default_factory=list[str]
    )  # checks that do not hold the arm, by name, e.g. [tracking_error]; printed at every start
    realtime: RealtimeConfig = field(
        default_factory=RealtimeConfig
    )  # priority, memory and core of the process

    def __post_init__(self) -> None:
        if not 50 <= self.servo_hz <= 500:
            raise ConfigError(f"control.servo_hz is {self.servo_hz}; expected 50 to 500")
        if self.max_action_age_ms <= 0:
            raise ConfigError(
                f"control.max_action_age_ms is {self.max_action_age_ms}; expected a positive number"
            )
        if self.ensemble_decay < 0:
            raise ConfigError(
                f"control.ensemble_decay is {self.ensemble_decay}; expected 0 or more"
            )

        checks_by_name(self.disabled_checks)

    @property
    def checks_off(self) -> frozenset[Check]:
        """The checks that `disabled_checks` names."""
        return checks_by_name(self.disabled_checks)

    @property
    def period_s(self) -> float:
        """Duration of one servo tick."""
        return 1.0 / self.servo_hz
