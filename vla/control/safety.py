"""What stands between a policy and an arm: every check is always on, and every one fails closed.

These are software checks. They keep an arm from damaging itself through a wrong command; they are not a
certified safety function and do not replace the robot's own stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vla.control.limiter import JointLimiter, Limited
from vla.control.limits import JointLimits, Workspace
from vla.control.robot import JointState
from vla.control.rotation import Pose, Vector
from vla.errors import ConfigError
from vla.types import ActionSpec, FloatArray

_AT_REST_M = 1e-5  # a tool that goes further than this in a tick is moving


class Check(Enum):
    """Why the arm is held or a command refused; the value is the key in summary.json."""

    COMMAND = "command_refused"  # not finite, of the wrong shape, or absurdly large
    POLICY_LATE = "policy_late"  # no action whose observation is young enough
    POLICY_ENDED = "policy_ended"  # the policy process is gone
    STATE = "state_invalid"  # the arm's own measurement is not finite or too old
    TRACKING = "tracking_error"  # a joint is not where it was told to be
    WORKSPACE = "workspace"  # the tool is leaving its box
    OVERRUN = "overrun"  # several deadlines in a row missed
    EMERGENCY_STOP = "emergency_stop"  # latched until reset


@dataclass(kw_only=True)
class SafetyConfig:
    """How tight the checks are. Joint limits themselves come with the arm (vla.control.limits)."""

    position_margin_rad: float = 0.02  # commands stay this far inside the joint's range
    # Distance of a joint from its command. A position servo at its force limit is 0.03 rad away.
    max_tracking_error_rad: float = 0.1
    max_state_age_ms: float = 50.0  # oldest measurement of the arm that a command may be based on
    # Targets are clamped to the workspace; the tool itself may swing this far beyond it.
    workspace_slack_m: float = 0.02
    # An action beyond this many times its limit is refused; below that it is clipped.
    absurd_factor: float = 10.0
    # Consecutive ticks that began more than one period late before the arm is held.
    max_overruns: int = 5

    def __post_init__(self) -> None:
        positive = ("max_tracking_error_rad", "max_state_age_ms", "workspace_slack_m")
        for name in (*positive, "absurd_factor", "max_overruns"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"safety.{name} must be positive; got {getattr(self, name)}")
        if self.position_margin_rad < 0:
            raise ConfigError(
                f"safety.position_margin_rad must be 0 or more; got {self.position_margin_rad}"
            )


@dataclass(frozen=True)
class Breach:
    """One check that failed; the message names the limit, the joint, the value and its unit."""

    check: Check
    message: str


@dataclass
class SafetyCounts:
    """How often the normal corrections were at work: ticks in which a limit shaped the command, and actions clipped."""

    clipped_actions: int = 0
    refused_chunks: int = 0
    position_ticks: int = 0
    velocity_ticks: int = 0
    acceleration_ticks: int = 0
    workspace_clamps: int = 0
    emergency_stops: int = 0
    refusals: list[str] = field(default_factory=list[str])  # the first few messages


class Safety:
    """Checks chunks as they arrive and commands as they leave; the only way from a target to the arm."""

    def __init__(
        self,
        config: SafetyConfig,
        limits: JointLimits,
        workspace: Workspace,
        period_s: float,
        max_action_age_s: float,
    ) -> None:
        """`max_action_age_s` is how old the observation behind an action may be while the action is carried out."""
        self._config = config
        self._limits = limits
        self._workspace = workspace
        self._max_action_age_s = max_action_age_s
        self.limiter = JointLimiter(limits, period_s, config.position_margin_rad)
        self.counts = SafetyCounts()
        self._stop_reason = ""
        self._consecutive_overruns = 0
        self._excess_m = 0.0
        self._is_giving_way = False

    # ---- what comes in ---------------------------------------------------------------------------------------------

    def admit(self, actions: NDArray[np.floating], spec: ActionSpec) -> FloatArray | Breach:
        """Returns actions (steps, width) within the limits of `spec`, or why the whole chunk is refused.

        Slightly too large is clipped and counted; not finite, of another width or absurdly large is refused, because
        what produced it cannot be trusted for its other numbers either.
        """
        reason = self._absurdity(actions, spec)
        if reason:
            self.counts.refused_chunks += 1
            if len(self.counts.refusals) < 10:
                self.counts.refusals.append(reason)
            return Breach(Check.COMMAND, reason)
        clipped = spec.clip(actions)
        self.counts.clipped_actions += int((np.abs(clipped - actions) > 1e-6).any(axis=1).sum())
        return clipped

    def clamp_to_workspace(self, goal: Pose) -> Pose:
        """Returns the permitted tool pose nearest to `goal`."""
        inside = self._workspace.clamp(goal)
        is_clamped = inside.rotation is not goal.rotation or not np.array_equal(
            inside.position, goal.position
        )
        self.counts.workspace_clamps += int(is_clamped)
        return inside

    # ---- what goes on ----------------------------------------------------------------------------------------------

    def check(
        self, state: JointState, tool_position: Vector, now_s: float, captured_at_s: float | None
    ) -> Breach | None:
        """Returns the first check that fails at this tick, or None.

        Args:
            state: the arm as measured.
            tool_position: (3,) m, of the last command.
            now_s: this tick's instant.
            captured_at_s: when the observation behind the action in progress was captured; None when there is none.
        """
        return (
            self._check_state(state, now_s)
            or self._check_action_age(now_s, captured_at_s)
            or self._check_tracking(state)
            or self._check_workspace(tool_position)
            or self._check_emergency_stop()
            or self._check_overruns()
        )

    def count_lateness(self, is_overrun: bool) -> None:
        """Takes note of whether this tick began more than one period late."""
        self._consecutive_overruns = self._consecutive_overruns + 1 if is_overrun else 0

    def emergency_stop(self, reason: str) -> None:
        """Latches the stop: the arm brakes and holds until `reset_emergency_stop`."""
        if not self._stop_reason:
            self.counts.emergency_stops += 1
            self._stop_reason = reason

    def reset_emergency_stop(self) -> None:
        self._stop_reason = ""

    # ---- what goes out ---------------------------------------------------------------------------------------------

    def follow(self, target: Vector) -> Limited:
        """Returns the command towards `target` (joints,) rad that keeps every limit; brakes when it is not finite."""
        if not np.isfinite(target).all():
            return self.brake()
        limited = self.limiter.follow(target)
        counts = self.counts
        counts.position_ticks += int(limited.by_position.any())
        counts.velocity_ticks += int(limited.by_velocity.any())
        counts.acceleration_ticks += int(limited.by_acceleration.any())
        return limited

    @property
    def is_at_rest(self) -> bool:
        """Whether the last command asks for no motion."""
        return not self.limiter.velocity.any()

    def brake(self) -> Limited:
        """Returns the command of the quickest permitted stop."""
        return self.limiter.brake()

    def give_way(self, state: JointState) -> Limited:
        """Returns the command that holds: brakes, or moves towards the measured position when a joint is held back."""
        if self._is_giving_way and np.isfinite(state.joints).all():
            return self.limiter.follow(state.joints)
        return self.brake()

    @staticmethod
    def gripper(opening: float) -> float:
        """Returns the opening within 0 (closed) and 1 (open); closes nothing and opens nothing when not a number."""
        return min(1.0, max(0.0, opening)) if math.isfinite(opening) else 1.0

    def restart(self, state: JointState) -> None:
        """Begins an episode at rest where the arm stands; raises RobotError when that is outside the limits."""
        self.limiter.reset(state.joints)
        self._is_giving_way = False
        self._excess_m = 0.0

    # ---- the checks ------------------------------------------------------------------------------------------------

    def _absurdity(self, actions: NDArray[np.floating], spec: ActionSpec) -> str:
        if actions.ndim != 2 or len(actions) == 0 or actions.shape[1] != spec.width:
            return f"a chunk of shape {actions.shape} was refused; expected (steps, {spec.width})"
        bound = self._config.absurd_factor * np.maximum(np.abs(spec.low), np.abs(spec.high))
        bad = ~(np.abs(actions) <= bound)  # also where not a number
        if not bad.any():
            return ""
        step, dim = (int(i) for i in np.argwhere(bad)[0])
        value, unit = float(actions[step, dim]), spec.units[dim]
        where = f"action {spec.names[dim]} = {value:.4g} {unit} in step {step}"
        return f"{where} was refused; limit {spec.high[dim]:.4g} {unit}"

    def _check_state(self, state: JointState, now_s: float) -> Breach | None:
        finite = np.isfinite(state.joints) & np.isfinite(state.velocity)
        if not finite.all():
            joint = self._limits.names[int(np.argmin(finite))]
            return Breach(Check.STATE, f"the measurement of {joint} is not finite")
        age_ms = 1e3 * (now_s - state.measured_at_s)
        if age_ms > self._config.max_state_age_ms:
            limit = self._config.max_state_age_ms
            return Breach(
                Check.STATE,
                f"the last measurement of the arm is {age_ms:.0f} ms old, limit {limit:.0f} ms",
            )
        return None

    def _check_action_age(self, now_s: float, captured_at_s: float | None) -> Breach | None:
        if captured_at_s is None or now_s - captured_at_s <= self._max_action_age_s:
            return None
        age, limit = 1e3 * (now_s - captured_at_s), 1e3 * self._max_action_age_s
        return Breach(
            Check.POLICY_LATE,
            f"the action in progress is based on a view {age:.0f} ms old, limit {limit:.0f} ms",
        )

    def _check_tracking(self, state: JointState) -> Breach | None:
        error = np.abs(state.joints - self.limiter.joints)
        worst = int(np.argmax(error))
        limit = self._config.max_tracking_error_rad * (0.5 if self._is_giving_way else 1.0)
        self._is_giving_way = bool(error[worst] > limit)
        if not self._is_giving_way:
            return None
        name = self._limits.names[worst]
        return Breach(
            Check.TRACKING,
            f"{name} is {error[worst]:.3f} rad from its command, limit {limit:.3f} rad",
        )

    def _check_workspace(self, tool_position: Vector) -> Breach | None:
        axis, excess_m, bound_m = self._workspace.excess(tool_position)
        is_leaving = (
            excess_m > self._config.workspace_slack_m and excess_m > self._excess_m + _AT_REST_M
        )
        self._excess_m = excess_m
        if not is_leaving:
            return None
        beyond = f"the tool is {excess_m:.3f} m beyond {axis} = {bound_m:.3f} m"
        return Breach(Check.WORKSPACE, f"{beyond}, slack {self._config.workspace_slack_m:.3f} m")

    def _check_emergency_stop(self) -> Breach | None:
        return Breach(Check.EMERGENCY_STOP, self._stop_reason) if self._stop_reason else None

    def _check_overruns(self) -> Breach | None:
        count, limit = self._consecutive_overruns, self._config.max_overruns
        if count < limit:
            return None
        return Breach(
            Check.OVERRUN, f"{count} ticks in a row began more than one period late, limit {limit}"
        )
