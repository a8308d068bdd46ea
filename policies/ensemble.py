"""Temporal ensembling: every action is the average of all the chunks that foresaw it.

Source: ACT, arXiv 2304.13705, section 4.1.
"""

from __future__ import annotations

import numpy as np

from vla.types import FloatArray


class TemporalEnsemble:
    """Averages overlapping chunks with weights exp(-decay * i), i = 0 for the oldest prediction of a step.

    One chunk is added per step. With `decay` 0 all predictions weigh the same; a larger one lets the oldest rule.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._chunks: list[
            FloatArray
        ] = []  # oldest first; row 0 is each one's action for the present step

    def reset(self) -> None:
        """Forgets the chunks of the last episode."""
        self._chunks = []

    def add(self, chunk: FloatArray) -> FloatArray:
        """Returns the averaged action (width,) for the instant of `chunk` (steps, width), its first row's."""
        self._chunks = [known[1:] for known in self._chunks if len(known) > 1] + [chunk]
        weights = np.exp(-self._decay * np.arange(len(self._chunks)))
        present = np.stack([known[0] for known in self._chunks])
        return (weights @ present / weights.sum()).astype(np.float32)
