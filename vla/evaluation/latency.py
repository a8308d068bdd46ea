"""Latency on the simulated clock: actions arrive later than the observation they answer."""

from __future__ import annotations

import math

import numpy as np

from vla.types import ActionSpec, FloatArray


class DelayLine:
    """Gives back the actions that were put in `latency_ms` earlier.

    The policy is asked at the usual instants, and the action it means for time t takes effect at t + latency: every
    action comes from an observation that is `latency_ms` older than usual. Let the latency be n + f policy steps with
    0 <= f < 1. During a step, the action from n + 1 steps ago is still in force for the share f of the step, and the
    one from n steps ago for the rest. So relative dimensions (displacements over the step) are blended in these
    proportions, which is exact for a robot that moves at constant speed within a step; absolute dimensions (the
    gripper) take the one in force for longer. Until the first action arrives the robot rests.
    """

    def __init__(self, spec: ActionSpec, latency_ms: float) -> None:
        steps = latency_ms / 1000 * spec.rate_hz
        self._whole = math.floor(steps + 1e-9)
        self._fraction = max(0.0, steps - self._whole)
        self._is_relative = np.asarray(spec.is_relative)
        self._actions: list[FloatArray] = []

    def reset(self, rest: FloatArray) -> None:
        """Fills the line with `rest` (width,): the action in force before any answer has arrived."""
        self._actions = [rest] * (self._whole + 1)

    def push(self, action: FloatArray) -> FloatArray:
        """Takes the action (width,) meant for this step; returns the one that takes effect in it."""
        self._actions.append(action)
        older, newer = self._actions.pop(0), self._actions[0]
        blend = self._fraction * older + (1 - self._fraction) * newer
        longer = older if self._fraction > 0.5 else newer
        return np.where(self._is_relative, blend, longer).astype(np.float32)
