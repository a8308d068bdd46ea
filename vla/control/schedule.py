"""Which action of which chunk comes next: chunks arrive late, and late is counted in actions, not in guessed time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from vla.control.rotation import Pose
from vla.types import FloatArray


class Schedule(Enum):
    """How chunks are carried out."""

    RECEDING_HORIZON = "receding_horizon"  # the newest chunk takes over at the next action; late actions are dropped


@dataclass(frozen=True, kw_only=True)
class Capture:
    """The instant of an observation, as the control loop keeps it until the answer comes.

    Attributes:
        base: number of the action that began at that instant, or would have begun next.
        captured_at_s: on the control loop's clock.
        tool: where the tool was told to be.
    """

    base: int
    captured_at_s: float
    tool: Pose


@dataclass(frozen=True, kw_only=True)
class TimedChunk:
    """A chunk as the control loop received it.

    Attributes:
        sequence: number of the message, for the log.
        capture: the observation it answers; its first action is meant as number `capture.base`.
        actions: (steps, width) in the units of the ActionSpec, already found finite and in range.
    """

    sequence: int
    capture: Capture
    actions: FloatArray


@dataclass(frozen=True, kw_only=True)
class ScheduledAction:
    """One action to begin now.

    Attributes:
        chunk: where it comes from.
        index: its place in the chunk; those before it were carried out or dropped.
        num_usable: how many actions of the chunk may be carried out.
    """

    chunk: TimedChunk
    index: int
    num_usable: int

    @property
    def following(self) -> FloatArray | None:
        """(width,) the action that comes next if no fresher chunk does, or None."""
        return self.chunk.actions[self.index + 1] if self.index + 1 < self.num_usable else None


@dataclass(frozen=True)
class NoAction:
    """Why there is none; `is_overdue` tells a policy that is late from one that has not answered yet."""

    reason: str
    is_overdue: bool


class ChunkScheduler(Protocol):
    """Takes chunks as they arrive and hands out one action when the last has ended."""

    consumed: int  # actions begun so far in this episode

    def reset(self, now_s: float) -> None:
        """Forgets all chunks and counts from 0: a new episode begins at `now_s`."""
        ...

    def offer(self, chunk: TimedChunk) -> None:
        """Takes note of a chunk that has arrived."""
        ...

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        """Returns the action to begin at `now_s`, counted as consumed, or why there is none."""
        ...


class RecedingHorizon:
    """Carries out the newest chunk from the action that is due, and drops those that were due while it was computed.

    An observation captured after `base` actions leads to actions number base, base + 1, ... When its chunk arrives,
    `consumed - base` further actions have begun, so exactly that many are skipped. An index difference cannot be wrong
    about how long a policy took, a rate that drifted, or a pause in between; an estimate from latency can.

    An action may begin only while its observation is at most `max_age_s` old. When none may, the policy is
    overdue at once if age was the reason, and after `max_age_s` of waiting if a chunk is used up or none came.
    """

    def __init__(self, max_age_s: float, execute_steps: int = 0) -> None:
        """Takes the oldest permitted observation, and how many actions of one chunk may be used (0 = all)."""
        self._max_age_s = max_age_s
        self._execute_steps = execute_steps
        self.reset(0.0)

    def reset(self, now_s: float) -> None:
        self.consumed = 0
        self._chunk: TimedChunk | None = None
        self._idle_since_s: float | None = now_s

    def offer(self, chunk: TimedChunk) -> None:
        if self._chunk is None or chunk.capture.base >= self._chunk.capture.base:
            self._chunk = chunk

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        chunk = self._chunk
        index = self.consumed - chunk.capture.base if chunk else 0
        if chunk is None or index >= self._usable(chunk):
            return self._idle(
                now_s, "no chunk has arrived" if chunk is None else "the last chunk is used up"
            )
        age_ms, limit_ms = 1e3 * (now_s - chunk.capture.captured_at_s), 1e3 * self._max_age_s
        if age_ms > limit_ms:
            reason = f"the next action is based on an observation {age_ms:.0f} ms old, limit {limit_ms:.0f} ms"
            return NoAction(reason, is_overdue=True)
        self.consumed += 1
        self._idle_since_s = None
        return ScheduledAction(chunk=chunk, index=index, num_usable=self._usable(chunk))

    def _idle(self, now_s: float, why: str) -> NoAction:
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        waited_ms, limit_ms = 1e3 * (now_s - self._idle_since_s), 1e3 * self._max_age_s
        return NoAction(
            f"{why}; waited {waited_ms:.0f} ms for an action, limit {limit_ms:.0f} ms",
            waited_ms > limit_ms,
        )

    def _usable(self, chunk: TimedChunk) -> int:
        steps = len(chunk.actions)
        return min(steps, self._execute_steps) if self._execute_steps else steps
