"""Small stand-ins with the shape of the real things, quick enough for unit tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla.errors import CheckpointError
from vla.types import END_EFFECTOR_DELTA_7D, ActionChunk, FloatArray, Observation


class FakeEnv:
    """A point to bring to the origin along x, 8 steps at most; the start depends on the seed alone."""

    render_mode = None
    max_steps = 8
    is_closed = False

    def __init__(self, image_size: int = 16) -> None:
        self._image_size = image_size
        self.received: list[FloatArray] = []
        self.options: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        self.options = dict(options or {})
        self._rng = np.random.default_rng(seed)
        self._x = self._rng.uniform(0.05, 0.25)
        self._steps = 0
        self.received = []
        return self._observation(), self._info("")

    def step(self, action: FloatArray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.received.append(np.asarray(action))
        self._x += float(action[0])
        self._steps += 1
        is_success, is_late = abs(self._x) < 0.02, self._steps >= self.max_steps
        failure = "timeout" if is_late and not is_success else ""
        return self._observation(), float(is_success), is_success, is_late, self._info(failure)

    def close(self) -> None:
        self.is_closed = True

    def _observation(self) -> dict[str, Any]:
        shape = (self._image_size, self._image_size, 3)
        images = {name: np.full(shape, 200, np.uint8) for name in ("front", "wrist")}
        state = np.array([self._x, 0, 0, 0, 0, 0, 0.08], np.float32)
        return {"images": images, "state": state, "instruction": "go to the middle"}

    def _info(self, failure: str) -> dict[str, Any]:
        return {
            "task": "fake",
            "instruction": "go to the middle",
            "target": "middle",
            "is_success": abs(self._x) < 0.02,
            "failure": failure,
        }


@dataclass
class FakePolicy:
    """Moves towards x = 0 by `gain` times the distance, with noise that belongs to the episode's seed."""

    gain: float = 1.0
    noise: float = 0.0
    chunk_length: int = 1
    seen: list[Observation] = field(default_factory=list)
    reset_seeds: list[int | None] = field(default_factory=list)

    action_spec = END_EFFECTOR_DELTA_7D
    camera_names = ("front", "wrist")

    def reset(self, seed: int | None = None) -> None:
        self.reset_seeds.append(seed)
        self._rng = np.random.default_rng(seed)

    def act(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        actions = np.zeros((self.chunk_length, 7), np.float32)
        actions[:, 0] = -self.gain * observation.state[0] + self._rng.normal(0, self.noise)
        actions[:, 6] = 1.0
        return ActionChunk(actions=actions, captured_at_s=observation.captured_at_s)

    def act_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return [self.act(observation) for observation in observations]


def make_noisy_policy(env: FakeEnv, gain: float = 0.3) -> FakePolicy:
    """Returns a policy that solves some seeds and not others."""
    return FakePolicy(gain=gain, noise=0.03)


def refuse_checkpoint(env: FakeEnv) -> FakePolicy:
    """Fails as a damaged checkpoint does."""
    raise CheckpointError("model.safetensors is truncated")


def crash_process(env: FakeEnv) -> FakePolicy:
    """Ends the process at once, as the kernel does when memory runs out."""
    os._exit(1)
