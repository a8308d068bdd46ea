"""An expert that reads the simulator's state, in the shape of a policy."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vla.types import TABLETOP, ActionChunk, Embodiment, FloatArray, Observation


class Expert(Protocol):
    """What a scripted expert offers."""

    def reset(self, rng: np.random.Generator) -> None:
        """Gets ready for a new episode."""
        ...

    def act(self) -> FloatArray:
        """Returns the action (width,) for the simulator's present state."""
        ...


class ScriptedExpertPolicy:
    """Asks the expert at every step; of the observation it uses only the time."""

    def __init__(self, expert: Expert, embodiment: Embodiment = TABLETOP) -> None:
        self.action_spec = embodiment.action_spec
        self.camera_names = embodiment.camera_names
        self._expert = expert

    def reset(self, seed: int | None = None) -> None:
        """Gets the expert ready for a new episode."""
        self._expert.reset(np.random.default_rng(seed))

    def act(self, observation: Observation) -> ActionChunk:
        """Returns one action, the expert's."""
        return ActionChunk(
            actions=self._expert.act()[None], captured_at_s=observation.captured_at_s
        )
