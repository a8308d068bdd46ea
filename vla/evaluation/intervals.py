"""How sure a success rate is: Wilson's interval for one, a paired comparison for two on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vla.errors import VlaError

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Successes out of `episodes` with the 95 % interval [low, high]; a rate of no episodes is nan in [0, 1]."""

    successes: int
    episodes: int
    success_rate: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Second success rate minus first over the same seeds.

    Attributes:
        seeds: how many seeds were compared.
        gained: seeds that only the second solved.
        lost: seeds that only the first solved.
        difference: second rate minus first.
        low: lower end of its 95 % bootstrap interval over seeds.
        high: upper end.
        p_value: of McNemar's exact test, two-sided: how often a difference like this comes by chance.
    """

    seeds: int
    gained: int
    lost: int
    difference: float
    low: float
    high: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: int, episodes: int, z: float = Z_95) -> Rate:
    """Returns the success rate with Wilson's score interval (Wilson 1927, JASA 22, 209-212).

    Unlike the normal approximation it stays inside [0, 1] and keeps a width at 0 and at `episodes` successes.
    """
    if not 0 <= successes <= episodes:
        raise VlaError(
            f"{successes} successes of {episodes} episodes; need 0 <= successes <= episodes"
        )
    if episodes == 0:
        return Rate(successes=0, episodes=0, success_rate=math.nan, low=0.0, high=1.0)
    rate, spread = successes / episodes, z * z / episodes
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / episodes + spread / (4 * episodes)) / (1 + spread)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == episodes else min(1.0, centre + half)
    return Rate(successes=successes, episodes=episodes, success_rate=rate, low=low, high=high)


def compare_paired(
    first: Sequence[bool], second: Sequence[bool], *, resamples: int = 20_000, seed: int = 0
) -> PairedComparison:
    """Returns how much better `second` is than `first`, outcome k of both being of the same seed.

    Pairing takes the difficulty of the seeds out of the difference, so its interval is narrower than that of two
    independent rates.
    """
    if len(first) != len(second) or not first:
        raise VlaError(
            f"a paired comparison needs the outcomes of the same seeds; got {len(first)} and {len(second)}"
        )
    pairs = list(zip(first, second, strict=True))
    gained = sum(not a and b for a, b in pairs)
    lost = sum(a and not b for a, b in pairs)
    total = len(pairs)
    # A resample of the pairs only matters through how many are gained, lost or unchanged.
    shares = [gained / total, lost / total, (total - gained - lost) / total]
    drawn = np.random.default_rng(seed).multinomial(total, shares, size=resamples)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / total, [0.025, 0.975])
    return PairedComparison(
        seeds=total,
        gained=gained,
        lost=lost,
        difference=(gained - lost) / total,
        low=float(low),
        high=float(high),
        p_value=mcnemar_p_value(gained, lost),
    )


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Returns the exact two-sided p-value of McNemar's test: are `gained` and `lost` tosses of a fair coin?"""
    tosses, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(tosses, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**tosses)
