"""Temporal ensembling: every action is the average of all the chunks that foresaw it.

Source: ACT, arXiv 2304.13705, section 4.1: weights exp(-m i), i = 0 for the oldest prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vla.control.plan import continued
from vla.control.schedule import (
    Follower,
    NoAction,
    ScheduledAction,
    SchedulerSettings,
    TimedChunk,
)
from vla.types import FloatArray


def act_weights(count: int, decay: float) -> NDArray[np.float64]:
    """Returns (count,) the weights of the predictions of one action, oldest first; they add up to 1."""
    weights = np.exp(-decay * np.arange(count))
    return weights / weights.sum()


class TemporalEnsemble:
    """Averages the goals of all chunks that reach the action; of the gripper the weighted majority counts.

    ACT averages absolute targets. Relative actions are therefore added up to goals first, counted from where the arm
    was told to be at each observation: an average of deltas would lose the corrections, as leaving some out does.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings, self._follower = settings, Follower(settings)
        self._relative = np.asarray(settings.spec.is_relative)
        self._foreseen: list[_Foreseen] = []  # oldest observation first
        self._length = 0  # of the newest chunk

    @property
    def consumed(self) -> int:
        return self._follower.consumed

    def reset(self, now_s: float) -> None:
        self._follower.reset(now_s)
        self._foreseen = []

    def offer(self, chunk: TimedChunk, now_s: float) -> None:
        del now_s
        self._length = len(chunk.actions)
        begun = self._follower.record.since(chunk.capture.base)[:, self._relative].sum(axis=0)
        goals = np.cumsum(chunk.actions[:, self._relative], axis=0, dtype=np.float64) - begun
        self._foreseen.append(_Foreseen(chunk, goals))
        self._foreseen.sort(key=lambda known: known.chunk.capture.base)

    def next_action(self, now_s: float) -> ScheduledAction | NoAction:
        consumed = self.consumed
        max_age_s = self._settings.max_age_s
        self._foreseen = [
            known
            for known in self._foreseen
            if known.end > consumed and now_s - known.chunk.capture.captured_at_s <= max_age_s
        ]
        if self._foreseen:
            self._follower.chunk = self._average(consumed)
        scheduled = self._follower.next_action(now_s)
        if isinstance(scheduled, ScheduledAction):
            moved = scheduled.action[self._relative]
            for known in self._foreseen:
                known.goals = known.goals - moved
        return scheduled

    def wants_chunk(self, base: int) -> bool:
        is_waiting = base == self.consumed and all(known.end <= base for known in self._foreseen)
        return self._length != 1 or is_waiting

    def committed(self, base: int) -> FloatArray:
        return self._follower.record.since(self.consumed)

    def _average(self, consumed: int) -> TimedChunk:
        """Returns the newest chunk with every action that has not begun replaced by the average."""
        newest = self._foreseen[-1].chunk
        record, spec = self._follower.record, self._settings.spec
        rows = [self._average_action(number) for number in range(consumed, self._foreseen[-1].end)]
        goals = np.array([goal for goal, _ in rows])
        ahead = np.empty((len(rows), spec.width), dtype=np.float32)
        ahead[:, self._relative] = np.diff(goals, axis=0, prepend=0.0)
        ahead[:, ~self._relative] = [absolute for _, absolute in rows]
        begun = record.since(newest.capture.base)
        actions = np.concatenate([begun, ahead])
        actions = continued(actions, begun, record.last, spec, self._settings.gripper_pause)
        return replace(newest, actions=actions)

    def _average_action(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the average goal of action `number`, counted from the present one, and its absolute dimensions."""
        reaching = [
            known for known in self._foreseen if known.chunk.capture.base <= number < known.end
        ]
        weights = act_weights(len(reaching), self._settings.ensemble_decay)
        at = [number - known.chunk.capture.base for known in reaching]
        goals = np.array([known.goals[i] for known, i in zip(reaching, at, strict=True)])
        values = np.array(
            [known.chunk.actions[i, ~self._relative] for known, i in zip(reaching, at, strict=True)]
        )
        return weights @ goals, _weighted_median(values, weights)


@dataclass
class _Foreseen:
    """A chunk and its goals (steps, relative dimensions), counted from where the arm is told to be now."""

    chunk: TimedChunk
    goals: NDArray[np.float64]

    @property
    def end(self) -> int:
        return self.chunk.capture.base + len(self.chunk.actions)


def _weighted_median(values: FloatArray, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (dims,) the weighted median of each column of `values` (predictions, dims)."""
    order = np.argsort(values, axis=0)
    cumulated = np.cumsum(weights[order], axis=0)
    place = (cumulated < 0.5 - 1e-9).sum(axis=0)
    return np.take_along_axis(values, np.take_along_axis(order, place[None], axis=0), axis=0)[
        0
    ].astype(np.float64)
