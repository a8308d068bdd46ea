"""A policy that does nothing: the floor that every other policy must beat."""

from __future__ import annotations

import numpy as np

from vla.types import TABLETOP, ActionChunk, Embodiment, Observation

# Fingers this far apart hold nothing; closer than that they may hold an object, and opening would drop it.
OPEN_GRIP_WIDTH_M = 0.072


class HoldPolicy:
    """Stays where it is, with the gripper as it is."""

    def __init__(self, embodiment: Embodiment = TABLETOP) -> None:
        self.action_spec = embodiment.action_spec
        self.camera_names = embodiment.camera_names
        self._grip_index = embodiment.state_spec.names.index("grip_width")

    def reset(self, seed: int | None = None) -> None:
        """Does nothing: this policy remembers nothing."""

    def act(self, observation: Observation) -> ActionChunk:
        """Returns one action that changes nothing."""
        is_open = observation.state[self._grip_index] > OPEN_GRIP_WIDTH_M
        absolute = np.full(self.action_spec.width, float(is_open))
        return ActionChunk(
            actions=self.action_spec.rest(absolute)[None], captured_at_s=observation.captured_at_s
        )
