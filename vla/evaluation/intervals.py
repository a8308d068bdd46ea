"""How sure a success rate is: Wilson's interval for one, a paired comparison for two on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
        low: lower end of its 95 % interval (Newcombe's, see `compare_paired`).
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
    rate = successes / episodes
    low, high = wilson_bounds(rate, episodes, z)
    return Rate(successes=successes, episodes=episodes, success_rate=rate, low=low, high=high)


def wilson_bounds(rate: float, size: float, z: float = Z_95) -> tuple[float, float]:
    """Returns both ends of Wilson's interval of a share of `size` outcomes, which need not be a whole number."""
    spread = z * z / size
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / size + spread / (4 * size)) / (1 + spread)
    low = 0.0 if rate == 0 else max(0.0, centre - half)
    high = 1.0 if rate == 1 else min(1.0, centre + half)
    return low, high


def compare_paired(first: Sequence[bool], second: Sequence[bool]) -> PairedComparison:
    """Returns how much better `second` is than `first`, outcome k of both being of the same seed.

    Pairing takes the difficulty of the seeds out of the difference, so its interval is narrower than that of two
    independent rates. The interval joins Wilson's bounds of both rates and the correlation between them (Newcombe
    1998, Statistics in Medicine 17, 2635-2650, method 10); unlike a bootstrap it keeps a width when every seed was
    gained.
    """
    if len(first) != len(second) or not first:
        raise VlaError(
            f"a paired comparison needs the outcomes of the same seeds; got {len(first)} and {len(second)}"
        )
    pairs = list(zip(first, second, strict=True))
    gained = sum(not a and b for a, b in pairs)
    lost = sum(a and not b for a, b in pairs)
    both = sum(a and b for a, b in pairs)
    total = len(pairs)
    difference = (gained - lost) / total
    below, above = _newcombe_distances(both, gained, lost, total)
    return PairedComparison(
        seeds=total,
        gained=gained,
        lost=lost,
        difference=difference,
        low=max(-1.0, difference - below),
        high=min(1.0, difference + above),
        p_value=mcnemar_p_value(gained, lost),
    )


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Returns the exact two-sided p-value of McNemar's test: are `gained` and `lost` tosses of a fair coin?"""
    tosses, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(tosses, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**tosses)


def _newcombe_distances(both: int, gained: int, lost: int, total: int) -> tuple[float, float]:
    """Returns how far the 95 % interval of the paired difference reaches below and above it."""
    first, second = wilson(both + lost, total), wilson(both + gained, total)
    phi = _phi(both, gained, lost, total - both - gained - lost)

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    below = distance(second.success_rate - second.low, first.high - first.success_rate)
    above = distance(second.high - second.success_rate, first.success_rate - first.low)
    return below, above


def _phi(both: int, gained: int, lost: int, neither: int) -> float:
    """Returns the correlation of the outcomes, corrected for continuity; 0 where one of them never varies."""
    margins = (both + gained) * (both + lost) * (neither + gained) * (neither + lost)
    if margins == 0:
        return 0.0
    product, half = both * neither - gained * lost, (both + gained + lost + neither) / 2
    if product > 0:
        product = max(product - half, 0.0)
    return product / math.sqrt(margins)
