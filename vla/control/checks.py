"""Why an arm is held: the names of the checks, what each of them sees, and which may be turned off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from vla.control.robot import JointState
from vla.control.rotation import Vector
from vla.errors import ConfigError, unknown_name


class Check(Enum):
    """Why the arm is held or a command refused; the value is the key in summary.json and in disabled_checks."""

    COMMAND = "command_refused"  # not finite, of the wrong shape, or absurdly large
    STATE = "state_invalid"  # the arm's own measurement is not finite, or the arm reports a fault
    STATE_LATE = "state_late"  # the arm's own measurement is too old
    POLICY_LATE = "policy_late"  # no action whose observation is young enough
    POLICY_ENDED = "policy_ended"  # the policy process is gone
    POSITION = "position"  # a joint is, or is sent, beyond its range
    VELOCITY = (
        "velocity"  # a joint is too fast, for its limit or for the way left to the end of its range
    )
    TRACKING = "tracking_error"  # a joint is not where it was told to be
    WORKSPACE = "workspace"  # the tool is leaving its box
    TOOL_SPEED = "tool_speed"  # the tool goes or turns too fast
    GRIPPER_FORCE = "gripper_force"  # the fingers press too hard
    GRIPPER_WIDTH = "gripper_width"  # the fingers are where they cannot be
    EMERGENCY_STOP = "emergency_stop"  # latched until reset
    OVERRUN = "overrun"  # several deadlines in a row missed


# Without these there is nothing to send, nobody to obey, or no way to stop.
ALWAYS_ON = (Check.COMMAND, Check.POLICY_ENDED, Check.EMERGENCY_STOP)


@dataclass(frozen=True)
class Breach:
    """One check that failed; the message names the limit, the joint, the value and its unit."""

    check: Check
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is known at one tick.

    Attributes:
        now_s: this tick's instant.
        state: the arm as measured.
        command: (joints,) rad, the last command.
        captured_at_s: when the observation behind the action in progress was captured; None when there is none.
        is_policy_alive: whether the policy process runs.
        tool: (3,) m, of the last command.
        tool_speed_m_s, tool_turn_rad_s: of the last command.
    """

    now_s: float
    state: JointState
    command: Vector
    captured_at_s: float | None
    is_policy_alive: bool
    tool: Vector
    tool_speed_m_s: float
    tool_turn_rad_s: float


class TickCheck(Protocol):
    """One row of the table."""

    check: Check

    def __call__(self, moment: Moment) -> str:
        """Returns what is wrong, or an empty text."""
        ...


def checks_by_name(names: Sequence[str]) -> frozenset[Check]:
    """Returns the checks of these names, to be turned off; raises ConfigError for one that is unknown or must stay."""
    known = {check.value: check for check in Check if check not in ALWAYS_ON}
    for name in names:
        if name in {check.value for check in ALWAYS_ON}:
            raise ConfigError(
                f"the check {name!r} cannot be turned off; take it out of disabled_checks"
            )
        if name not in known:
            raise ConfigError(unknown_name("check", name, known))
    return frozenset(known[name] for name in names)
