"""A policy that draws every action at random: what success by accident amounts to."""

from __future__ import annotations

import numpy as np

from vla.types import TABLETOP, ActionChunk, Embodiment, Observation


class RandomPolicy:
    """Draws each number uniformly between its limits."""

    def __init__(self, embodiment: Embodiment = TABLETOP, seed: int = 0) -> None:
        self.action_spec = embodiment.action_spec
        self.camera_names = embodiment.camera_names
        self._rng = np.random.default_rng(seed)

    def reset(self, seed: int | None = None) -> None:
        """Starts the sequence of draws that belongs to `seed`; without one the present sequence goes on."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)

    def act(self, observation: Observation) -> ActionChunk:
        """Returns one action within the limits of the ActionSpec."""
        action = self._rng.uniform(self.action_spec.low, self.action_spec.high)
        return ActionChunk(
            actions=action.astype(np.float32)[None], captured_at_s=observation.captured_at_s
        )
