"""Latency on a simulated clock: when answers arrive, and which action is in force meanwhile."""

from __future__ import annotations

import numpy as np

from vla.control.rotation import Pose
from vla.control.schedule import Capture, ChunkScheduler, NoAction, TimedChunk
from vla.types import ActionSpec, FloatArray

_SAME_INSTANT_S = 1e-6
_NO_TOOL = Pose(np.zeros(3), np.eye(3))  # the environment keeps the tool's target itself


class Timeline:
    """One episode's schedule: the rules of the control loop, on the grid of the environment's steps.

    The policy answers one observation at a time and takes `latency_s` for it. It is asked when it is free, the
    scheduler wants a chunk, and an action is about to begin or the arm is waiting. While no action may begin the arm
    rests; rests that are no whole steps are added up until they are, since a scene at rest does not change.
    """

    def __init__(self, scheduler: ChunkScheduler, spec: ActionSpec, latency_s: float) -> None:
        self._scheduler, self._spec, self._latency_s = scheduler, spec, latency_s
        self._last = spec.rest(np.asarray(spec.high))  # the gripper is open
        self._rest_s = 0.0
        self._asked_at_s = -1.0
        self._under_way: tuple[float, TimedChunk] | None = None  # due when, answer
        self._num_answers = 0
        self.now_s = 0.0
        scheduler.reset(0.0)

    def committed(self) -> FloatArray:
        """Returns (steps, width) the actions that will begin before an answer to an observation taken now arrives."""
        return self._scheduler.committed(self._scheduler.consumed)

    def answer(self, actions: FloatArray) -> None:
        """Takes the chunk (steps, width) for an observation taken now; it arrives `latency_s` later."""
        self._num_answers += 1
        capture = Capture(base=self._scheduler.consumed, captured_at_s=self.now_s, tool=_NO_TOOL)
        chunk = TimedChunk(sequence=self._num_answers, capture=capture, actions=actions)
        self._under_way = (self.now_s + self._latency_s, chunk)
        self._asked_at_s = self.now_s

    def step(self) -> FloatArray | None:
        """Returns the action (width,) of the environment's next step, or None when the policy must answer first."""
        while True:
            if self._rest_s >= self._spec.dt_s - _SAME_INSTANT_S:
                self._rest_s -= self._spec.dt_s
                return self._spec.rest(self._last)
            self._deliver()
            if self._is_to_ask():
                return None
            scheduled = self._scheduler.next_action(self.now_s)
            if not isinstance(scheduled, NoAction):
                self.now_s += self._spec.dt_s
                self._last = scheduled.action
                return self._last
            # Nothing may begin until the answer under way is there, or, when there is none, before a step has passed.
            arrives_s = self._under_way[0] if self._under_way else self.now_s + self._spec.dt_s
            self._rest_s += arrives_s - self.now_s
            self.now_s = arrives_s

    def _deliver(self) -> None:
        if self._under_way is not None and self.now_s >= self._under_way[0] - _SAME_INSTANT_S:
            self._scheduler.offer(self._under_way[1], self.now_s)
            self._under_way = None

    def _is_to_ask(self) -> bool:
        is_new_instant = self.now_s > self._asked_at_s + _SAME_INSTANT_S
        is_free = self._under_way is None
        return is_free and is_new_instant and self._scheduler.wants_chunk(self._scheduler.consumed)
