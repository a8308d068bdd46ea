"""Which action of which chunk comes next: chunks arrive late, and late is counted in actions, not in guessed time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from vla.types import FloatArray


class Schedule(Enum):
    """How chunks are carried out."""

    RECEDING_HORIZON = "receding_horizon"  # the newest chunk takes over at the next action; late actions are dropped


@dataclass(frozen=True, kw_only=True)
class TimedChunk:
    """A chunk as the control loop received it.

    Attributes:
        sequence: number of the message, for the log.
        base: how many actions had begun when its observation was captured; its first action is meant as number `base`.
        captured_at_s: when that observation was captured, on the control loop's clock.
        actions: (steps, width) in the units of the ActionSpec, already found finite and in range.
    """

    sequence: int
    base: int
    captured_at_s: float
    actions: FloatArray


@dataclass(frozen=True, kw_only=True)
class ScheduledAction:
    """One action to begin now.

    Attributes:
        action: (width,).
        following: (width,) the action that comes next if no fresher chunk does, or None.
        index_in_chunk: how many actions of its chunk were dropped or used before it.
        captured_at_s: when the observation behind it was captured.
        sequence: of its chunk.
    """

    action: FloatArray
    following: FloatArray | None
    index_in_chunk: int
    captured_at_s: float
    sequence: int


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

    An action may begin only while its observation is at most `max_age_s` old. When there is none to begin, the policy is
    overdue at once if what stopped it was age; if a chunk is merely used up, or the first is awaited, after `max_age_s`.
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
        if self._chunk is None or chunk.base >= self._chunk.base:
            self._chunk = chunk

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        chunk = self._chunk
        index = self.consumed - chunk.base if chunk else 0
        if chunk is None or index >= self._usable(chunk):
            return self._idle(now_s, "no chunk has arrived" if chunk is None else "the last chunk is used up")
        age_ms, limit_ms = 1e3 * (now_s - chunk.captured_at_s), 1e3 * self._max_age_s
        if age_ms > limit_ms:
            reason = f"the next action is based on an observation {age_ms:.0f} ms old, limit {limit_ms:.0f} ms"
            return NoAction(reason, is_overdue=True)
        self.consumed += 1
        self._idle_since_s = None
        following = chunk.actions[index + 1] if index + 1 < self._usable(chunk) else None
        return ScheduledAction(
            action=chunk.actions[index],
            following=following,
            index_in_chunk=index,
            captured_at_s=chunk.captured_at_s,
            sequence=chunk.sequence,
        )

    def _idle(self, now_s: float, why: str) -> NoAction:
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        waited_ms, limit_ms = 1e3 * (now_s - self._idle_since_s), 1e3 * self._max_age_s
        return NoAction(f"{why}; waited {waited_ms:.0f} ms for an action, limit {limit_ms:.0f} ms", waited_ms > limit_ms)

    def _usable(self, chunk: TimedChunk) -> int:
        steps = len(chunk.actions)
        return min(steps, self._execute_steps) if self._execute_steps else steps
