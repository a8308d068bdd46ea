"""Which action of which chunk comes next: chunks arrive late, and late is counted in actions, not in guessed time.

    capture   an observation is taken while `base` actions have begun; its chunk is meant for base, base + 1, ...
    offer     the chunk arrives; by now `consumed` actions have begun, so its first consumed - base are past
    begin     an action begins when the last has had its period

An index difference cannot be wrong about how long a policy took, a rate that drifted, or a pause in between; an
estimate from latency can.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from vla.control.rotation import Pose
from vla.types import END_EFFECTOR_DELTA_7D, ActionSpec, FloatArray

_KEPT_ACTIONS = 256  # several times the longest chunk


class Schedule(Enum):
    """How chunks are carried out."""

    SYNCHRONOUS = "synchronous"  # ask, wait, carry out, ask again
    ASYNCHRONOUS = "asynchronous"  # the newest chunk takes over at the next action; what is past of it is dropped
    TEMPORAL_ENSEMBLE = (
        "temporal_ensemble"  # every action is the average of all chunks that foresaw it (ACT)
    )
    REAL_TIME_CHUNKING = (
        "real_time_chunking"  # what will be carried out meanwhile is told to the policy and kept
    )


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """What every scheduler is built from.

    Attributes:
        spec: of the actions; relative ones add up, absolute ones (the gripper) are held.
        max_age_s: an action may begin only while its observation is at most this old.
        execute_steps: how many actions of one chunk may be used; 0 = all.
        gripper_pause: the arm stands for one action when the gripper turns; see `vla.control.plan`.
        ensemble_decay: ACT's m: weight exp(-m i), i = 0 for the oldest prediction.
    """

    spec: ActionSpec = END_EFFECTOR_DELTA_7D
    max_age_s: float = math.inf
    execute_steps: int = 0
    gripper_pause: bool = True
    ensemble_decay: float = 0.01


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
        chunk: where it comes from. The actions before `index` are those that have begun since the capture, so that all
            of them up to `index`, one after the other, lead from `chunk.capture.tool` to this action's goal.
        index: its place in the chunk.
        num_usable: how many actions of the chunk may be carried out.
    """

    chunk: TimedChunk
    index: int
    num_usable: int

    @property
    def action(self) -> FloatArray:
        """(width,) the action itself."""
        return self.chunk.actions[self.index]

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

    @property
    def consumed(self) -> int:
        """Actions begun so far in this episode."""
        ...

    def reset(self, now_s: float) -> None:
        """Forgets all chunks and counts from 0: a new episode begins at `now_s`."""
        ...

    def offer(self, chunk: TimedChunk, now_s: float) -> None:
        """Takes note of a chunk that has arrived at `now_s`."""
        ...

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        """Returns the action to begin at `now_s`, counted as consumed, or why there is none."""
        ...

    def wants_chunk(self, base: int) -> bool:
        """Returns whether a policy that is free should answer an observation captured now, before action `base`.

        `base` is `consumed`, or one less when an action begins at this very instant. Schedulers that do not wait always
        want one, except where answers are single actions: past when they come, unless the arm waits for them.
        """
        ...

    def committed(self, base: int) -> FloatArray:
        """Returns (steps, width) the actions number base, base + 1, ... that will have begun when an answer arrives.

        A policy that can decodes the rest of its chunk given these; empty where the scheduler commits to none.
        """
        ...


class Record:
    """The actions that have begun in this episode, by number; the oldest are forgotten."""

    def __init__(self, spec: ActionSpec) -> None:
        self._actions: deque[FloatArray] = deque(maxlen=_KEPT_ACTIONS)
        self._width = spec.width
        self.count = 0

    def add(self, action: FloatArray) -> None:
        """Takes note that the next action has begun."""
        self._actions.append(action)
        self.count += 1

    def since(self, base: int) -> FloatArray:
        """Returns (count - base, width) the actions number `base` and later."""
        begun = list(self._actions)[max(0, len(self._actions) - max(0, self.count - base)) :]
        return np.array(begun, dtype=np.float32).reshape(len(begun), self._width)

    @property
    def last(self) -> FloatArray | None:
        """(width,) the newest, or None before the first."""
        return self._actions[-1] if self._actions else None


class Follower:
    """Hands out the actions of the chunk in force: what all schedulers have in common.

    An action may begin only while its observation is at most `max_age_s` old. When none may, the policy is overdue
    at once if age was the reason, and after `max_age_s` of waiting if a chunk is used up or none came.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings = settings
        self.reset(0.0)

    def reset(self, now_s: float) -> None:
        """Begins a new episode."""
        self.record = Record(self._settings.spec)
        self.chunk: TimedChunk | None = None
        self._outdated: TimedChunk | None = None  # the chunk whose next action was found too old
        self._idle_since_s: float | None = now_s

    @property
    def consumed(self) -> int:
        """Actions begun so far."""
        return self.record.count

    @property
    def remaining(self) -> FloatArray:
        """(steps, width) the actions of the chunk in force that have not begun."""
        chunk = self.chunk
        if chunk is None:
            return np.zeros((0, self._settings.spec.width), dtype=np.float32)
        return chunk.actions[self.consumed - chunk.capture.base : self._usable(chunk)]

    def is_newer(self, chunk: TimedChunk) -> bool:
        """Returns whether `chunk` may replace the one in force: an older answer never replaces a newer one."""
        return self.chunk is None or chunk.capture.base >= self.chunk.capture.base

    def has_nothing_to_do(self, base: int) -> bool:
        """Returns whether the arm waits at an instant before action `base`: none is in progress, and none can begin."""
        is_usable = len(self.remaining) > 0 and self.chunk is not self._outdated
        return base == self.consumed and not is_usable

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        """Returns the next action of the chunk in force, or why there is none."""
        chunk = self.chunk
        index = self.consumed - chunk.capture.base if chunk else 0
        if chunk is None or index >= self._usable(chunk):
            return self._idle(
                now_s, "no chunk has arrived" if chunk is None else "the last chunk is used up"
            )
        limit_s = self._settings.max_age_s
        age_s = now_s - chunk.capture.captured_at_s
        if age_s > limit_s:
            reason = (
                f"the next action is based on an observation {1e3 * age_s:.0f} ms old, "
                f"limit {1e3 * limit_s:.0f} ms"
            )
            self._outdated = chunk
            return NoAction(reason, is_overdue=True)
        self.record.add(chunk.actions[index])
        self._idle_since_s = None
        return ScheduledAction(chunk=chunk, index=index, num_usable=self._usable(chunk))

    def _idle(self, now_s: float, why: str) -> NoAction:
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        waited_s, limit_s = now_s - self._idle_since_s, self._settings.max_age_s
        return NoAction(
            f"{why}; waited {1e3 * waited_s:.0f} ms for an action, limit {1e3 * limit_s:.0f} ms",
            waited_s > limit_s,
        )

    def _usable(self, chunk: TimedChunk) -> int:
        steps = len(chunk.actions)
        return min(steps, self._settings.execute_steps) if self._settings.execute_steps else steps
