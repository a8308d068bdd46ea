"""Claims put to the test: what a text says, which figures would show it, and the verdict that they give.

A claim is a weighted sum of figures that should be above zero ("A is better than B": A - B). Its verdict is read off
the 95 % interval of that sum over the seeds, never written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from vla.evaluation.comparison import Results
from vla.evaluation.estimates import Estimate, contrast_over_seeds

NEGLIGIBLE = 0.02  # a difference of shares that nobody would act on


class Expects(Enum):
    """What the claim says of its sum."""

    MORE = "more"  # it lies above zero
    SAME = "same"  # it is negligible


class Verdict(Enum):
    """What the interval says."""

    HOLDS = "holds here"
    OPPOSITE = "the opposite was measured"
    NO_DIFFERENCE = "no difference worth naming"
    DIFFERENCE = "does not hold: there is a difference"
    UNDECIDED = "undecided: the interval holds both"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Term:
    """A figure with its weight in the sum."""

    weight: float
    arm: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a text says, and what would support it.

    Attributes:
        says: the text's words, or close to them.
        test: what was done to see, in one sentence.
        sum_of: what should be above zero (MORE), or next to nothing (SAME).
        negligible: the smallest difference worth naming.
    """

    name: str
    says: str
    test: str
    experiment: str
    sum_of: Sequence[Term]
    expects: Expects = Expects.MORE
    negligible: float = NEGLIGIBLE


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim with its verdict and the figure it goes by."""

    claim: Claim
    verdict: Verdict
    effect: Estimate | None = None
    num_seeds: int = 0


def better(good: str, less_good: str, metric: str) -> tuple[Term, Term]:
    """Returns the terms of "`good` has more of `metric` than `less_good`"."""
    return Term(weight=1.0, arm=good, metric=metric), Term(
        weight=-1.0, arm=less_good, metric=metric
    )


def judge(claims: Sequence[Claim], results: Results) -> list[Finding]:
    """Returns every claim with its verdict; only seeds that all its figures have count."""
    return [_judge(claim, results) for claim in claims]


def _judge(claim: Claim, results: Results) -> Finding:
    known = [results.of(claim.experiment, term.arm, term.metric) for term in claim.sum_of]
    seeds = sorted(set.intersection(*(set(runs) for runs in known)))
    if not seeds:
        return Finding(claim=claim, verdict=Verdict.NOT_MEASURED)
    effect = contrast_over_seeds(
        [
            (term.weight, [runs[seed] for seed in seeds])
            for term, runs in zip(claim.sum_of, known, strict=True)
        ]
    )
    return Finding(
        claim=claim, verdict=verdict_of(claim, effect), effect=effect, num_seeds=len(seeds)
    )


def verdict_of(claim: Claim, effect: Estimate) -> Verdict:
    """Returns what the interval of the effect says about the claim.

    MORE holds when the interval lies above zero; the opposite was measured when it lies below; no difference when it
    lies within what is negligible. SAME holds when it lies within that, and does not when it lies outside of it.
    Else the figures do not decide.
    """
    is_negligible = -claim.negligible <= effect.low and effect.high <= claim.negligible
    if claim.expects is Expects.SAME:
        if is_negligible:
            return Verdict.HOLDS
        is_outside = effect.low > claim.negligible or effect.high < -claim.negligible
        return Verdict.DIFFERENCE if is_outside else Verdict.UNDECIDED
    if is_negligible:
        return Verdict.NO_DIFFERENCE
    if effect.low > 0:
        return Verdict.HOLDS
    return Verdict.OPPOSITE if effect.high < 0 else Verdict.UNDECIDED
