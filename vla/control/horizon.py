"""The two receding horizons: one waits for its policy, the other does not."""

from __future__ import annotations

from dataclasses import replace

from vla.control.plan import continued
from vla.control.schedule import (
    Follower,
    NoAction,
    ScheduledAction,
    SchedulerSettings,
    TimedChunk,
)
from vla.types import FloatArray


class Synchronous:
    """Carries out a chunk, then asks and waits: the arm stands for as long as the policy thinks.

    Nothing begins between an observation and its chunk, so nothing is ever past; the price is time.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings, self._follower = settings, Follower(settings)

    @property
    def consumed(self) -> int:
        return self._follower.consumed

    def reset(self, now_s: float) -> None:
        self._follower.reset(now_s)

    def offer(self, chunk: TimedChunk, now_s: float) -> None:
        del now_s
        follower = self._follower
        if follower.is_newer(chunk) and follower.has_nothing_to_do(self.consumed):
            self._follower.chunk = continuing(chunk, self._follower, self._settings)

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        return self._follower.next_action(now_s)

    def wants_chunk(self, base: int) -> bool:
        return self._follower.has_nothing_to_do(base)

    def committed(self, base: int) -> FloatArray:
        return self._follower.record.since(self.consumed)


class Asynchronous:
    """Carries out the newest chunk from the action that is due, and drops those that were due while it was computed.

    The policy is asked again as soon as it is free. How many actions are dropped is counted: those that have begun
    since the observation, however long that was.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings, self._follower = settings, Follower(settings)
        self._length = 0  # of the newest chunk

    @property
    def consumed(self) -> int:
        return self._follower.consumed

    def reset(self, now_s: float) -> None:
        self._follower.reset(now_s)

    def offer(self, chunk: TimedChunk, now_s: float) -> None:
        del now_s
        self._length = len(chunk.actions)
        if self._follower.is_newer(chunk):
            self._follower.chunk = continuing(chunk, self._follower, self._settings)

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        return self._follower.next_action(now_s)

    def wants_chunk(self, base: int) -> bool:
        return self._length != 1 or self._follower.has_nothing_to_do(base)

    def committed(self, base: int) -> FloatArray:
        return self._follower.record.since(self.consumed)


def continuing(chunk: TimedChunk, follower: Follower, settings: SchedulerSettings) -> TimedChunk:
    """Returns the chunk as it is to be carried out after what `follower` has begun since its observation."""
    record = follower.record
    actions = continued(
        chunk.actions,
        record.since(chunk.capture.base),
        record.last,
        settings.spec,
        settings.gripper_pause,
    )
    return replace(chunk, actions=actions)
