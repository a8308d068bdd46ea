"""Figures with their 95 % intervals: shares by Wilson, means by a bootstrap over pictures, runs by their seeds.

What belongs to one picture is not independent, so intervals go by pictures: a bootstrap draws whole pictures, and
Wilson's interval of several questions about each picture counts no more questions than they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.errors import VlaError
from vla.evaluation.intervals import wilson_bounds

Floats = NDArray[np.float64]

RESAMPLES = 1000
# Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom (any printed table); beyond, the next smaller.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure of `n` observations and its 95 % interval [low, high]; nan in [-inf, inf] when there was nothing.

    Attributes:
        n: what was counted: questions, pairs, pictures, phrases.
        num_pictures: how many pictures (or seeds) they come from, which is what the interval goes by.
        method: how the interval came about.
    """

    value: float
    low: float
    high: float
    n: int
    num_pictures: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """Returns `0.812 (0.776 to 0.843, n 400)`."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n {self.n})"


def nothing(method: str) -> Estimate:
    """Returns the estimate from no observations."""
    return Estimate(
        value=math.nan, low=-math.inf, high=math.inf, n=0, num_pictures=0, method=method
    )


def bare(value: float) -> Estimate:
    """Returns a figure of which nobody knows how sure it is; over several seeds that shows."""
    return Estimate(
        value=value, low=-math.inf, high=math.inf, n=0, num_pictures=0, method="one figure"
    )


def mean_of(figures: Sequence[Estimate]) -> Estimate:
    """Returns the mean of figures that were measured apart, each counting alike; their intervals are joined.

    Raises:
        VlaError: there are none.
    """
    if not figures:
        raise VlaError("a mean needs figures; got none")
    count = len(figures)
    value = sum(figure.value for figure in figures) / count
    return Estimate(
        value=value,
        low=value - math.hypot(*(figure.value - figure.low for figure in figures)) / count,
        high=value + math.hypot(*(figure.high - figure.value for figure in figures)) / count,
        n=sum(figure.n for figure in figures),
        num_pictures=sum(figure.num_pictures for figure in figures),
        method="mean",
    )


def share(outcomes: Sequence[bool], pictures: Sequence[Hashable] | None = None) -> Estimate:
    """Returns the share of True with Wilson's interval.

    With several outcomes per picture the interval is Wilson's for n / deff of them, deff being how many times larger
    the variance of the share is than that of independent outcomes (Kish 1965; Korn and Graubard 1998, Survey
    Methodology 24, 193-201). Where every outcome is the same no variance can be had, and n is the number of pictures.

    Args:
        outcomes: one per question.
        pictures: the picture of each outcome; None: each has one of its own.
    """
    if pictures is not None and len(pictures) != len(outcomes):
        raise VlaError(f"{len(outcomes)} outcomes need one picture each; got {len(pictures)}")
    right = np.asarray(outcomes, dtype=float)
    if right.size == 0:
        return nothing("Wilson")
    totals, counts = _by_picture(right, pictures)
    size = _effective_size(totals, counts)
    rate = float(right.mean())
    low, high = wilson_bounds(rate, size)
    method = "Wilson" if len(totals) == right.size else "Wilson, by picture"
    return Estimate(
        value=rate, low=low, high=high, n=right.size, num_pictures=len(totals), method=method
    )


def mean_by_picture(
    values: Sequence[float], pictures: Sequence[Hashable] | None = None, seed: int = 0
) -> Estimate:
    """Returns the mean over all values; its interval is the percentile bootstrap that draws whole pictures.

    Args:
        values: e.g. one IoU per phrase.
        pictures: the picture of each value; None: each has one of its own.
        seed: of the resampling.
    """
    if pictures is not None and len(pictures) != len(values):
        raise VlaError(f"{len(values)} values need one picture each; got {len(pictures)}")
    if len(values) == 0:
        return nothing("bootstrap by picture")
    totals, counts = _by_picture(np.asarray(values, dtype=float), pictures)
    return bootstrap(
        lambda copies: float(copies @ totals / (copies @ counts)), len(totals), len(values), seed
    )


def bootstrap(
    statistic: Callable[[Floats], float], num_pictures: int, n: int, seed: int = 0
) -> Estimate:
    """Returns a statistic with the percentile bootstrap's interval over pictures (Efron and Tibshirani 1993, ch. 13).

    Args:
        statistic: from how often each picture was drawn, (pictures,), to the figure; nan where it is not defined.
        num_pictures: pictures there are.
        n: what the figure is of, for the record.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    shares = np.full(num_pictures, 1 / num_pictures)
    draws = rng.multinomial(num_pictures, shares, size=RESAMPLES).astype(float)
    values = np.array([statistic(copies) for copies in draws])
    values = values[np.isfinite(values)]
    value = statistic(np.ones(num_pictures))
    low, high = np.quantile(values, [0.025, 0.975]) if values.size else (-math.inf, math.inf)
    return Estimate(
        value=value,
        low=min(float(low), value),
        high=max(float(high), value),
        n=n,
        num_pictures=num_pictures,
        method="bootstrap by picture",
    )


def over_seeds(runs: Sequence[Estimate]) -> Estimate:
    """Returns the mean over runs of different seeds; the seeds are what the interval goes by.

    It is Student's interval of the runs' values, but never narrower than the runs' own intervals joined as if they
    were one large run: three seeds that happen to agree are not certain. One run keeps its own interval.
    """
    known = [run for run in runs if math.isfinite(run.value)]
    if not known:
        return nothing("t over seeds")
    if len(known) == 1:
        return known[0]
    values = np.array([run.value for run in known])
    mean, half = float(values.mean()), _t_half(values)
    below = above = 0.0
    if sure := [run for run in known if math.isfinite(run.high - run.low)]:
        joined = mean_of(sure)
        below, above = joined.value - joined.low, joined.high - joined.value
    return Estimate(
        value=mean,
        low=mean - max(half, below),
        high=mean + max(half, above),
        n=sum(run.n for run in known),
        num_pictures=len(known),
        method="t over seeds",
    )


def difference_over_seeds(first: Sequence[Estimate], second: Sequence[Estimate]) -> Estimate:
    """Returns second minus first, run k of both being of the same seed; see `contrast_over_seeds`."""
    return contrast_over_seeds([(-1.0, first), (1.0, second)])


def contrast_over_seeds(terms: Sequence[tuple[float, Sequence[Estimate]]]) -> Estimate:
    """Returns a weighted sum of figures, run k of each being of the same seed, with an interval that goes by seeds.

    The sum is taken for each seed, so that what a seed makes hard for all cancels. The interval is Student's of these
    sums, but never narrower than that of independent figures with the runs' own intervals (Newcombe 1998: the roots of
    the summed squares of the distances to the bounds).

    Raises:
        VlaError: no terms, or terms with different numbers of runs.
    """
    counts = {len(runs) for _, runs in terms}
    if len(counts) != 1 or counts == {0}:
        raise VlaError(
            f"a contrast needs runs of the same seeds; got {[len(runs) for _, runs in terms]} of them"
        )
    weights = [weight for weight, _ in terms]
    return over_seeds(
        [_weighted(weights, runs) for runs in zip(*(runs for _, runs in terms), strict=True)]
    )


def _weighted(weights: Sequence[float], runs: Sequence[Estimate]) -> Estimate:
    """The weighted sum of figures of one seed, as if they were independent."""
    pairs = list(zip(weights, runs, strict=True))
    value = sum(weight * run.value for weight, run in pairs)
    low = [w * (run.low - run.value if w > 0 else run.high - run.value) for w, run in pairs]
    high = [w * (run.high - run.value if w > 0 else run.low - run.value) for w, run in pairs]
    return Estimate(
        value=value,
        low=value - math.hypot(*low),
        high=value + math.hypot(*high),
        n=min(run.n for run in runs),
        num_pictures=min(run.num_pictures for run in runs),
        method="Newcombe",
    )


def _by_picture(values: Floats, pictures: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Returns sum and number of the values of every picture, in the order of their first appearance."""
    if pictures is None:
        return values, np.ones(len(values))
    places: dict[Hashable, int] = {}
    index = [places.setdefault(picture, len(places)) for picture in pictures]
    totals, counts = np.zeros(len(places)), np.zeros(len(places))
    np.add.at(totals, index, values)
    np.add.at(counts, index, 1.0)
    return totals, counts


def _effective_size(totals: Floats, counts: Floats) -> float:
    """Returns how many independent outcomes the outcomes of these pictures are worth."""
    n, num_pictures = float(counts.sum()), len(totals)
    if num_pictures == n:
        return n
    rate = float(totals.sum()) / n
    if num_pictures == 1 or rate in (0.0, 1.0):
        return float(num_pictures)
    residuals = totals - rate * counts
    variance = num_pictures / (num_pictures - 1) * float(residuals @ residuals) / n**2
    return n / max(1.0, variance / (rate * (1 - rate) / n))


def _t_half(values: Floats) -> float:
    freedom = min(len(values) - 1, len(_T_95))
    return _T_95[freedom - 1] * float(values.std(ddof=1)) / math.sqrt(len(values))
