"""What stands between a policy and an arm: checks are on unless turned off by name, and every one fails closed.

These are software checks. They keep an arm from damaging itself through a wrong command; they are not a
certified safety function and do not replace the robot's own stop.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vla.control.checks import Breach, Check, Moment
from vla.control.limiter import JointLimiter, Limited
from vla.control.limits import JointLimits, Workspace
from vla.control.robot import JointState
from vla.control.rotation import Pose
from vla.control.tick_checks import DeadlinesKept, NotStopped, Tracking, build_checks
from vla.errors import ConfigError
from vla.types import ActionSpec, FloatArray

_MAX_REFUSALS_KEPT = 10
_RESET_HINT = (
    "; the arm stays held until the stop is reset (control.safety.after_policy_loss=refuse)"
)


class AfterPolicyLoss(Enum):
    """What follows when a policy that was silent or gone is back."""

    RESUME = "resume"  # the arm goes on with its next fresh chunk
    REFUSE = "refuse"  # the arm stays held until somebody resets the stop


@dataclass(kw_only=True)
class SafetyConfig:
    """How tight the checks are. Joint limits themselves come with the arm (vla.control.limits)."""

    position_margin_rad: float = 0.02  # commands stay this far inside the joint's range
    # Distance of a joint from its command. A position servo at its force limit is 0.03 rad away.
    max_tracking_error_rad: float = 0.1
    max_state_age_ms: float = 50.0  # oldest measurement of the arm that a command may be based on
    # Targets are clamped to the workspace; the tool itself may swing this far beyond it.
    workspace_slack_m: float = 0.02
    max_tool_speed_m_s: float | None = None  # tighter than the arm's own; null = the arm's own
    max_grip_force_n: float | None = (
        None  # tighter than the gripper's own; null = the gripper's own
    )
    # An action or a joint speed beyond this many times its limit is refused; below that it is clipped.
    absurd_factor: float = 10.0
    # Consecutive ticks that began more than one period late before the arm is held.
    max_overruns: int = 5
    after_policy_loss: AfterPolicyLoss = (
        AfterPolicyLoss.RESUME
    )  # when the policy was silent or gone

    def __post_init__(self) -> None:
        positive = ["max_tracking_error_rad", "max_state_age_ms", "workspace_slack_m"]
        positive += ["absurd_factor", "max_overruns"]
        optional = ("max_tool_speed_m_s", "max_grip_force_n")
        for name in (*positive, *(name for name in optional if getattr(self, name) is not None)):
            if not getattr(self, name) > 0:
                raise ConfigError(f"safety.{name} must be positive; got {getattr(self, name)}")
        if self.position_margin_rad < 0:
            raise ConfigError(
                f"safety.position_margin_rad must be 0 or more; got {self.position_margin_rad}"
            )


@dataclass
class SafetyCounts:
    """How often the normal corrections were at work: ticks in which a limit shaped the command, and actions clipped."""

    clipped_actions: int = 0
    refused_chunks: int = 0
    refused_targets: int = 0
    position_ticks: int = 0
    velocity_ticks: int = 0
    acceleration_ticks: int = 0
    workspace_clamps: int = 0
    emergency_stops: int = 0
    overruns: int = 0  # ticks that began more than one period late
    refusals: list[str] = field(default_factory=list[str])  # the first few messages


class Safety:
    """Checks chunks as they arrive and commands as they leave; the only way from a target to the arm.

    Attributes:
        limiter: hands out the commands.
        counts: what was corrected and refused.
        refused: why the last target given to `follow` was refused; None when it was not.
    """

    def __init__(
        self,
        config: SafetyConfig,
        limits: JointLimits,
        workspace: Workspace,
        period_s: float,
        max_action_age_s: float,
        disabled: Collection[Check] = (),
    ) -> None:
        """Builds the table of checks.

        Args:
            config: how tight they are.
            limits: of the arm.
            workspace: where its tool may be.
            period_s: servo period.
            max_action_age_s: how old the observation behind an action may be while the action is carried out.
            disabled: checks that are left out (vla.control.checks.checks_by_name).
        """
        self._config, self._limits, self._workspace = config, limits, workspace
        self._period_s = period_s
        self.limiter = JointLimiter(limits, period_s, config.position_margin_rad)
        self.counts = SafetyCounts()
        self.refused: Breach | None = None
        table = build_checks(config, limits, workspace, max_action_age_s)
        self._checks = tuple(check for check in table if check.check not in disabled)
        self._stop, self._deadlines, self._tracking = NotStopped(), DeadlinesKept(0), None
        for check in self._checks:
            match check:
                case NotStopped():
                    self._stop = check
                case DeadlinesKept():
                    self._deadlines = check
                case Tracking():
                    self._tracking = check
                case _:
                    pass
        # of the target in one period, rad: what is beyond is no motion but a mistake
        self._largest_step = config.absurd_factor * np.asarray(limits.velocity) * period_s
        self._last_tool: Pose | None = None
        self._narrowest_grip = 0.0  # opening below which the fingers pressed too hard

    # ---- what comes in ---------------------------------------------------------------------------------------------

    def admit(self, actions: NDArray[np.floating], spec: ActionSpec) -> FloatArray | Breach:
        """Returns actions (steps, width) within the limits of `spec`, or why the whole chunk is refused.

        Slightly too large is clipped and counted; not finite, of another width or absurdly large is refused, because
        what produced it cannot be trusted for its other numbers either.
        """
        reason = self._absurdity(actions, spec)
        if reason:
            self.counts.refused_chunks += 1
            return self._refuse(Breach(Check.COMMAND, reason))
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
        self,
        state: JointState,
        tool: Pose,
        now_s: float,
        captured_at_s: float | None,
        is_policy_alive: bool = True,
    ) -> Breach | None:
        """Returns the first check that fails at this tick, or None; call it once per tick.

        Args:
            state: the arm as measured.
            tool: of the last command.
            now_s: this tick's instant.
            captured_at_s: when the observation behind the action in progress was captured; None when there is none.
            is_policy_alive: whether the policy process runs.
        """
        speed, turn = self._tool_rates(tool)
        moment = Moment(
            now_s=now_s,
            state=state,
            command=self.limiter.joints,
            captured_at_s=captured_at_s,
            is_policy_alive=is_policy_alive,
            tool=tool.position,
            tool_speed_m_s=speed,
            tool_turn_rad_s=turn,
        )
        for check in self._checks:
            message = check(moment)
            if message:
                if check.check is Check.GRIPPER_FORCE:
                    self._narrowest_grip = state.gripper
                return Breach(check.check, message)
        return None

    def count_lateness(self, is_overrun: bool) -> None:
        """Takes note of whether this tick began more than one period late."""
        self._deadlines.count(is_overrun)
        self.counts.overruns = self._deadlines.total

    def lose_policy(self, breach: Breach) -> None:
        """Latches a hold because the policy was late or gone, where the settings say that it does not end by itself."""
        is_loss = breach.check in (Check.POLICY_LATE, Check.POLICY_ENDED)
        if is_loss and self._config.after_policy_loss is AfterPolicyLoss.REFUSE:
            self._stop.latch(Breach(breach.check, breach.message + _RESET_HINT))

    def emergency_stop(self, reason: str) -> None:
        """Latches the stop: the arm brakes and holds until `reset_emergency_stop`."""
        if not self._stop.reason:
            self.counts.emergency_stops += 1
            self._stop.latch(Breach(Check.EMERGENCY_STOP, reason))

    def reset_emergency_stop(self) -> None:
        """Ends whatever is latched."""
        self._stop.reset()

    # ---- what goes out ---------------------------------------------------------------------------------------------

    def follow(self, target: NDArray[np.float64]) -> Limited:
        """Returns the command towards `target` (joints,) rad that keeps every limit.

        A target of another shape, not finite, or absurdly far from the last one is refused: the command then brakes,
        and `refused` says why.
        """
        if (
            target.shape != self.limiter.joints.shape
            or not (np.abs(target - self.limiter.target) <= self._largest_step).all()
        ):  # also where not a number
            self.counts.refused_targets += 1
            self.refused = self._refuse(self._wrong_with(target))
            return self.brake()
        self.refused = None
        limited = self.limiter.follow(target)
        counts = self.counts
        counts.position_ticks += bool(limited.by_position.any())
        counts.velocity_ticks += bool(limited.by_velocity.any())
        counts.acceleration_ticks += bool(limited.by_acceleration.any())
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
        is_held_back = self._tracking is not None and self._tracking.is_breached
        if is_held_back and np.isfinite(state.joints).all():
            return self.limiter.follow(state.joints)
        return self.brake()

    def grip(self, opening: float) -> float:
        """Returns the opening to send, within 0 (closed) and 1 (open).

        What is not a number opens: nothing is squeezed by mistake. Fingers that pressed too hard close no further
        until they have been told to open.
        """
        wanted = min(1.0, max(0.0, opening)) if math.isfinite(opening) else 1.0
        if wanted >= self._narrowest_grip:
            self._narrowest_grip = 0.0
        return max(wanted, self._narrowest_grip)

    def restart(self, state: JointState) -> None:
        """Begins an episode at rest where the arm stands; raises RobotError when that is outside the limits."""
        self.limiter.reset(state.joints)
        if self._tracking is not None:
            self._tracking.is_breached = False
        self._last_tool, self._narrowest_grip = None, 0.0

    # ---- parts -----------------------------------------------------------------------------------------------------

    def _tool_rates(self, tool: Pose) -> tuple[float, float]:
        """Returns how fast the tool moved (m/s) and turned (rad/s) since the last call."""
        last, self._last_tool = self._last_tool, tool
        if last is None:
            return 0.0, 0.0
        x, y, z = (tool.position - last.position).tolist()
        # |R - R'| = 2 sqrt(2) sin(angle / 2), which is sqrt(2) angle for the small angles of one tick
        change = (tool.rotation - last.rotation).ravel()
        turned = math.sqrt(0.5 * float(change @ change))
        return math.sqrt(x * x + y * y + z * z) / self._period_s, turned / self._period_s

    def _refuse(self, breach: Breach) -> Breach:
        if len(self.counts.refusals) < _MAX_REFUSALS_KEPT:
            self.counts.refusals.append(breach.message)
        return breach

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

    def _wrong_with(self, target: NDArray[np.float64]) -> Breach:
        """Returns what is wrong with a refused target of `follow`."""
        limits, limiter = self._limits, self.limiter
        if target.shape != limiter.joints.shape:
            expected = f"expected ({limits.num_joints},)"
            return Breach(
                Check.COMMAND, f"a joint target of shape {target.shape} was refused; {expected}"
            )
        step = np.abs(target - limiter.target)
        worst = int(np.argmax(~(step <= self._largest_step)))
        name, value = limits.names[worst], float(target[worst])
        if not math.isfinite(value):
            return Breach(
                Check.COMMAND, f"the target of {name}, {value} rad, was refused: not finite"
            )
        low, high = limits.low[worst], limits.high[worst]
        if not low <= value <= high:
            where = f"outside [{low:.4f}, {high:.4f}] rad"
            return Breach(
                Check.POSITION, f"the target of {name}, {value:.4g} rad, was refused: {where}"
            )
        speed, limit = float(step[worst]) / self._period_s, limits.velocity[worst]
        message = f"the target of {name} was refused: it jumps as at {speed:.4g} rad/s, limit {limit:.3f} rad/s"
        return Breach(Check.VELOCITY, message)
