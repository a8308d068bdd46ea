"""Which bin of a distribution counts when nothing is drawn; needs no torch, so that settings can name it."""

from __future__ import annotations

from enum import Enum


class Readout(Enum):
    """What a model that decodes a chunk in one pass takes of each number's distribution at temperature 0."""

    MEDIAN = "median"  # the bin in the middle: those of several numbers belong to one plan; see sampling.median
    MODE = "mode"  # the most probable bin
