"""Which bin of a distribution counts when nothing is drawn; needs no torch, so that settings can name it."""

from __future__ import annotations

from enum import Enum


class Readout(Enum):
    """What a model that decodes a chunk in one pass takes of each number's distribution at temperature 0."""

    CAUTIOUS = (
        "cautious"  # what most of the probability agrees on; see vla.inference.sampling.cautious
    )
    MODE = "mode"  # the most probable bin
