"""What is checked in every tick, one small class per check, in the order of `build_checks`.

Each takes a `Moment` and returns what is wrong in words that name the limit, the joint, the value and its unit; an
empty text when nothing is. The first that finds something holds the arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vla.control.checks import Breach, Check, Moment, TickCheck
from vla.control.limits import GripperLimits, JointLimits, ToolLimits, Workspace
from vla.control.rotation import Vector

if TYPE_CHECKING:  # it builds the table
    from vla.control.safety import SafetyConfig

_AT_REST_M = 1e-5  # a tool that goes further than this in a tick is moving
_MEASURED_SHARE = 1.2  # of a velocity limit: noise and overshoot of a motor that keeps its commands
_BRAKING_RESERVE = 2.0  # a motor that lags behind may brake this much harder than commands do
_OPENING_SLACK = 0.1  # share of the gripper's width that its zero may be off


def build_checks(
    config: SafetyConfig, limits: JointLimits, workspace: Workspace, max_action_age_s: float
) -> tuple[TickCheck, ...]:
    """Returns every check that can hold an arm, in the order in which they are made.

    Three more act on what goes out instead of holding: commands are kept inside position, velocity, acceleration and
    jerk limits (vla.control.limiter).
    """
    return (
        MeasurementIsWhole(limits.names),
        MeasurementIsYoung(config.max_state_age_ms),
        ActionIsYoung(max_action_age_s),
        PolicyIsThere(),
        PositionInRange(limits, config.position_margin_rad),
        VelocityInLimits(limits, config.position_margin_rad),
        Tracking(limits.names, config.max_tracking_error_rad),
        ToolInWorkspace(workspace, config.workspace_slack_m),
        ToolIsSlow(limits.tool, config.max_tool_speed_m_s),
        GripIsGentle(limits.gripper, config.max_grip_force_n),
        GripperInRange(limits.gripper),
        NotStopped(),
        DeadlinesKept(config.max_overruns),
    )


# ---- finite, shape and age -----------------------------------------------------------------------------------------


@dataclass
class MeasurementIsWhole:
    """One finite number per joint for position and velocity, and no fault that the arm itself reports."""

    names: tuple[str, ...]
    check: Check = Check.STATE

    def __call__(self, moment: Moment) -> str:
        state, shape = moment.state, (len(self.names),)
        if state.fault:
            return state.fault
        if state.joints.shape != shape or state.velocity.shape != shape:
            shapes = f"{state.joints.shape} and {state.velocity.shape}"
            return (
                f"the measurement has positions and velocities of shape {shapes}; expected {shape}"
            )
        finite = np.isfinite(state.joints) & np.isfinite(state.velocity)
        if finite.all():
            return ""
        return f"the measurement of {self.names[int(np.argmin(finite))]} is not finite"


@dataclass
class MeasurementIsYoung:
    """The arm was measured less than `max_age_ms` ago."""

    max_age_ms: float
    check: Check = Check.STATE_LATE

    def __call__(self, moment: Moment) -> str:
        age_ms = 1e3 * (moment.now_s - moment.state.measured_at_s)
        if age_ms <= self.max_age_ms:
            return ""
        return f"the last measurement of the arm is {age_ms:.0f} ms old, limit {self.max_age_ms:.0f} ms"


@dataclass
class ActionIsYoung:
    """The observation behind the action in progress is at most `max_age_s` old."""

    max_age_s: float
    check: Check = Check.POLICY_LATE

    def __call__(self, moment: Moment) -> str:
        if moment.captured_at_s is None or moment.now_s - moment.captured_at_s <= self.max_age_s:
            return ""
        age_ms, limit_ms = 1e3 * (moment.now_s - moment.captured_at_s), 1e3 * self.max_age_s
        return f"the action in progress is based on a view {age_ms:.0f} ms old, limit {limit_ms:.0f} ms"


@dataclass
class PolicyIsThere:
    """The policy process runs."""

    check: Check = Check.POLICY_ENDED

    def __call__(self, moment: Moment) -> str:
        return "" if moment.is_policy_alive else "the policy process has ended"


# ---- joints --------------------------------------------------------------------------------------------------------


class PositionInRange:
    """No joint is measured further outside its range than commands stay inside it."""

    check: Check = Check.POSITION

    def __init__(self, limits: JointLimits, slack_rad: float) -> None:
        self._limits = limits
        self._low, self._high = (
            np.asarray(limits.low) - slack_rad,
            np.asarray(limits.high) + slack_rad,
        )

    def __call__(self, moment: Moment) -> str:
        joints = moment.state.joints
        if ((joints >= self._low) & (joints <= self._high)).all():
            return ""
        worst = int(np.argmax(np.maximum(self._low - joints, joints - self._high)))
        low, high = self._limits.low[worst], self._limits.high[worst]
        name = self._limits.names[worst]
        return f"{name} is at {joints[worst]:.4f} rad, outside [{low:.4f}, {high:.4f}] rad"


class VelocityInLimits:
    """No joint is measured faster than its limit, or too fast to stop before the end of its range."""

    check: Check = Check.VELOCITY

    def __init__(self, limits: JointLimits, slack_rad: float) -> None:
        self._limits = limits
        self._max_velocity = _MEASURED_SHARE * np.asarray(limits.velocity)
        self._low, self._high = (
            np.asarray(limits.low) - slack_rad,
            np.asarray(limits.high) + slack_rad,
        )
        # way to a stop = this x velocity^2
        self._stopping = 0.5 / (_BRAKING_RESERVE * np.asarray(limits.acceleration))

    def __call__(self, moment: Moment) -> str:
        joints, velocity = moment.state.joints, moment.state.velocity
        speed = np.abs(velocity)
        if not (speed <= self._max_velocity).all():
            return self._too_fast(int(np.argmax(speed / self._max_velocity)), speed)
        stop = joints + velocity * speed * self._stopping
        if ((stop >= self._low) & (stop <= self._high)).all():
            return ""
        # a joint outside its range that moves inwards is on the right way
        bad = ((stop > self._high) & (velocity > 0)) | ((stop < self._low) & (velocity < 0))
        return self._cannot_stop(int(np.argmax(bad)), joints, velocity) if bad.any() else ""

    def _too_fast(self, worst: int, speed: Vector) -> str:
        name, limit = self._limits.names[worst], self._limits.velocity[worst]
        return f"{name} moves at {speed[worst]:.3f} rad/s, limit {limit:.3f} rad/s"

    def _cannot_stop(self, worst: int, joints: Vector, velocity: Vector) -> str:
        limits, speed = self._limits, abs(float(velocity[worst]))
        end = limits.high[worst] if velocity[worst] > 0 else limits.low[worst]
        room = abs(end - float(joints[worst]))
        way = speed**2 * float(self._stopping[worst])
        return (
            f"{limits.names[worst]} moves at {speed:.3f} rad/s and needs {way:.3f} rad to stop, "
            f"{room:.3f} rad before the end of its range at {end:.4f} rad"
        )


@dataclass
class Tracking:
    """Every joint is within `limit_rad` of its last command; once one was not, within half of that."""

    names: tuple[str, ...]
    limit_rad: float
    is_breached: bool = False
    check: Check = Check.TRACKING

    def __call__(self, moment: Moment) -> str:
        error = np.abs(moment.state.joints - moment.command)
        worst = int(error.argmax())
        limit = self.limit_rad * (0.5 if self.is_breached else 1.0)
        self.is_breached = not error[worst] <= limit  # also when not a number
        if not self.is_breached:
            return ""
        return (
            f"{self.names[worst]} is {error[worst]:.3f} rad from its command, limit {limit:.3f} rad"
        )


# ---- tool and gripper ----------------------------------------------------------------------------------------------


@dataclass
class ToolInWorkspace:
    """The commanded tool is at most `slack_m` outside its box, or on its way back."""

    workspace: Workspace
    slack_m: float
    excess_m: float = 0.0
    check: Check = Check.WORKSPACE

    def __call__(self, moment: Moment) -> str:
        axis, excess_m, bound_m = self.workspace.excess(moment.tool)
        is_leaving = excess_m > self.slack_m and excess_m > self.excess_m + _AT_REST_M
        self.excess_m = excess_m
        if not is_leaving:
            return ""
        beyond = f"the tool is {excess_m:.3f} m beyond {axis} = {bound_m:.3f} m"
        return f"{beyond}, slack {self.slack_m:.3f} m"


@dataclass
class ToolIsSlow:
    """The commanded tool moves and turns no faster than its limits; None: none is published, none was set."""

    limits: ToolLimits | None
    max_speed_m_s: float | None
    check: Check = Check.TOOL_SPEED

    def __post_init__(self) -> None:
        own = self.limits.speed_m_s if self.limits else math.inf
        self._speed = min(own, self.max_speed_m_s or math.inf)
        self._turn = self.limits.turn_rad_s if self.limits else math.inf

    def __call__(self, moment: Moment) -> str:
        if not moment.tool_speed_m_s <= self._speed:
            return f"the tool moves at {moment.tool_speed_m_s:.3f} m/s, limit {self._speed:.3f} m/s"
        if not moment.tool_turn_rad_s <= self._turn:
            return f"the tool turns at {moment.tool_turn_rad_s:.3f} rad/s, limit {self._turn:.3f} rad/s"
        return ""


@dataclass
class GripIsGentle:
    """The fingers press no harder than their limit. A gripper that does not measure its force is not checked."""

    limits: GripperLimits | None
    max_force_n: float | None
    check: Check = Check.GRIPPER_FORCE

    def __post_init__(self) -> None:
        own = self.limits.force_n if self.limits else math.inf
        self._force = min(own, self.max_force_n or math.inf)

    def __call__(self, moment: Moment) -> str:
        force = moment.state.gripper_force_n
        if not force > self._force:
            return ""
        return f"the gripper presses with {force:.1f} N, limit {self._force:.1f} N"


@dataclass
class GripperInRange:
    """The fingers are between closed and open."""

    limits: GripperLimits | None
    check: Check = Check.GRIPPER_WIDTH

    def __call__(self, moment: Moment) -> str:
        opening = moment.state.gripper
        if -_OPENING_SLACK <= opening <= 1 + _OPENING_SLACK:
            return ""
        if self.limits is None:
            return f"the gripper is at {opening:.3f} of its width, outside [0, 1]"
        width = self.limits.width_m
        return f"the gripper is {opening * width:.3f} m wide, outside [0, {width:.3f}] m"


# ---- stop and deadlines --------------------------------------------------------------------------------------------


class NotStopped:
    """Nobody pressed the emergency stop, and nothing else was latched, since the last reset."""

    def __init__(self) -> None:
        self.check = Check.EMERGENCY_STOP  # or what was latched
        self.reason = ""

    def latch(self, breach: Breach) -> None:
        """Finds this breach in every tick until `reset`; the first one counts."""
        if not self.reason:
            self.check, self.reason = breach.check, breach.message

    def reset(self) -> None:
        self.check, self.reason = Check.EMERGENCY_STOP, ""

    def __call__(self, moment: Moment) -> str:
        del moment
        return self.reason


@dataclass
class DeadlinesKept:
    """Fewer than `limit` ticks in a row began more than one period late."""

    limit: int
    in_a_row: int = 0
    total: int = 0
    check: Check = Check.OVERRUN

    def count(self, is_overrun: bool) -> None:
        """Takes note of whether this tick began more than one period late."""
        self.in_a_row = self.in_a_row + 1 if is_overrun else 0
        self.total += int(is_overrun)

    def __call__(self, moment: Moment) -> str:
        del moment
        if self.in_a_row < self.limit:
            return ""
        return f"{self.in_a_row} ticks in a row began more than one period late, limit {self.limit}"
