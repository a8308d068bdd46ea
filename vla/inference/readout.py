"""Which bin of a distribution counts when nothing is drawn; needs no torch, so that settings can name it."""

from __future__ import annotations

from enum import Enum


class Readout(Enum):
    """What a model that decodes a chunk in one pass takes of each number's distribution at temperature 0."""

    MODE = "mode"  # the most probable bin
    MEDIAN = "median"  # the bin with as much probability below it as above
    CAUTIOUS = "cautious"  # of the bins about the median the one nearest to rest

    @property
    def middle_share(self) -> float | None:
        """Share of the probability, about its median, to choose from (`sampling.cautious`); None: the likeliest."""
        return _MIDDLE_SHARES[self]


_MIDDLE_SHARES = {Readout.MODE: None, Readout.MEDIAN: 0.0, Readout.CAUTIOUS: 0.2}
