"""Where training looks on the way from noise to actions; needs no torch, so that settings can name it."""

from __future__ import annotations

from enum import Enum


class FlowTimes(Enum):
    """Distribution of the time, 0 for noise and 1 for actions; see `vla.losses.continuous.draw_flow`."""

    UNIFORM = "uniform"  # everywhere alike: Lipman et al. 2023
    BETA = "beta"  # more where it is mostly noise, never after 0.999: pi0 (Black et al. 2024)
