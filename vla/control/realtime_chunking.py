"""Real-time chunking: what will be carried out while the policy thinks is promised to it, and the promise is kept.

Source: Black, Galliker, Levine: Real-Time Execution of Action Chunking Flow Policies, arXiv 2506.07339. The scheduler
here is for every policy; what the policy does with the promise is its own:

- decoding token by token: the committed actions are its first tokens, the rest is decoded given them (exact);
- a flow: `vla.control.guidance` steers the denoising towards them;
- decoding all slots at once: it cannot be told. The committed actions are carried out all the same; the rest of its
  chunk is goals for the observation it saw, continued from where the committed actions lead (`vla.control.plan`),
  and blended with the old chunk where that still reaches.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vla.control.horizon import continuing
from vla.control.plan import blended
from vla.control.schedule import (
    Follower,
    NoAction,
    ScheduledAction,
    SchedulerSettings,
    TimedChunk,
)
from vla.types import FloatArray

_REMEMBERED_ANSWERS = 10


class LatencyTracker:
    """Foresees how long the next answer takes: as long as the slowest of the last ten.

    It forgets: a policy's first answers, when it allocates and compiles, are ten times slower than all later ones.
    """

    def __init__(self, remembered: int = _REMEMBERED_ANSWERS) -> None:
        self._latencies_s: deque[float] = deque(maxlen=remembered)

    def add(self, latency_s: float) -> None:
        """Takes note of an answer."""
        self._latencies_s.append(latency_s)

    def steps(self, period_s: float) -> int:
        """Returns how many actions of `period_s` begin while an answer is under way; 0 before the first answer."""
        return math.ceil(max(self._latencies_s, default=0.0) / period_s - 1e-6)


def soft_mask(committed: int, overlap: int) -> NDArray[np.float64]:
    """Returns (overlap,) the weight of the old chunk from the observation on: 1 where committed, then falling to 0.

    Source: the paper's equation 5; `overlap` is H - s, where the old chunk ends.

        soft_mask(2, 5) = [1, 1, .49, .19, .04]
    """
    step = np.arange(overlap)
    left = np.clip((overlap - step) / (overlap - committed + 1), 0.0, 1.0)
    return np.where(step < committed, 1.0, left * np.expm1(left) / math.expm1(1.0))


class RealTimeChunking:
    """Keeps the actions it promised, and lets the new chunk take over smoothly after them.

    As many actions of a new chunk are past as have begun since its observation, whatever was foreseen: after an answer
    that comes early, the rest of the promise is carried out before anything new; after a late one, more is past.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings, self._follower = settings, Follower(settings)
        self._latency = LatencyTracker()
        self._length = 0  # of the newest chunk
        self._promised: dict[int, int] = {}  # actions promised, by the base of the observation

    @property
    def consumed(self) -> int:
        return self._follower.consumed

    def reset(self, now_s: float) -> None:
        self._follower.reset(now_s)
        self._promised = {}

    def offer(self, chunk: TimedChunk, now_s: float) -> None:
        self._latency.add(now_s - chunk.capture.captured_at_s)
        self._length = len(chunk.actions)
        follower, base = self._follower, chunk.capture.base
        if not follower.is_newer(chunk):
            return
        promised = self._promised.get(base, 0)
        self._promised = {known: count for known, count in self._promised.items() if known > base}
        past, old = self.consumed - base, follower.remaining
        if follower.has_nothing_to_do(self.consumed):
            old = old[:0]  # used up, or too old to be carried on with
        new = continuing(chunk, follower, self._settings)
        if past < len(chunk.actions):
            weights = soft_mask(promised, past + len(old))[past:]
            ahead = blended(old, new.actions[past:], weights, self._settings.spec)
            new = replace(new, actions=np.concatenate([new.actions[:past], ahead]))
        follower.chunk = new

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        return self._follower.next_action(now_s)

    def wants_chunk(self, base: int) -> bool:
        return self._length != 1 or self._follower.has_nothing_to_do(base)

    def committed(self, base: int) -> FloatArray:
        known = np.concatenate([self._follower.record.since(base), self._follower.remaining])
        promise = known[: self._latency.steps(self._settings.spec.dt_s)]
        self._promised[base] = len(promise)
        return promise
