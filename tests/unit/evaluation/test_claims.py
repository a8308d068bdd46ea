import math

import pytest

from vla.evaluation.claims import Claim, Expects, Term, Verdict, better, judge, verdict_of
from vla.evaluation.comparison import Results, Run
from vla.evaluation.estimates import Estimate


def estimate(value: float, half: float = 0.0) -> Estimate:
    return Estimate(
        value=value, low=value - half, high=value + half, n=50, num_pictures=50, method="given"
    )


def run(arm: str, seed: int, value: float) -> Run:
    return Run(experiment="ropes", arm=arm, seed=seed, metrics={"vqa": estimate(value, 0.01)})


def claim(expects: Expects = Expects.MORE) -> Claim:
    return Claim(
        name="two", says="Two is more than one.", test="two minus one", experiment="ropes",
        sum_of=better("two", "one", "vqa"), expects=expects,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("expects", "value", "half", "verdict"),
    [
        (Expects.MORE, 0.10, 0.05, Verdict.HOLDS),
        (Expects.MORE, -0.10, 0.05, Verdict.OPPOSITE),
        (Expects.MORE, 0.03, 0.05, Verdict.UNDECIDED),
        (Expects.MORE, 0.005, 0.01, Verdict.NO_DIFFERENCE),
        (
            Expects.MORE,
            0.012,
            0.005,
            Verdict.NO_DIFFERENCE,
        ),  # above zero, but nobody would act on it
        (Expects.SAME, 0.005, 0.01, Verdict.HOLDS),
        (Expects.SAME, 0.10, 0.05, Verdict.DIFFERENCE),
        (Expects.SAME, -0.10, 0.05, Verdict.DIFFERENCE),
        (Expects.SAME, 0.03, 0.05, Verdict.UNDECIDED),
    ],
)
def test_the_verdict_is_read_off_the_interval(expects, value, half, verdict):
    assert verdict_of(claim(expects), estimate(value, half)) is verdict


def test_seeds_are_paired_and_those_that_lack_an_arm_do_not_count():
    runs = [run("one", seed, 0.3 + 0.2 * seed) for seed in range(4)]
    runs += [run("two", seed, 0.4 + 0.2 * seed) for seed in range(3)]
    (finding,) = judge([claim()], Results(runs=runs))
    assert finding.effect is not None
    assert finding.effect.value == pytest.approx(0.1)
    assert finding.effect.num_pictures == 3
    assert finding.verdict is Verdict.HOLDS


def test_nothing_measured_is_no_verdict():
    (finding,) = judge([claim()], Results(runs=[run("one", 0, 0.5)]))
    assert finding.verdict is Verdict.NOT_MEASURED
    assert finding.effect is None


def test_a_claim_can_be_about_a_difference_of_differences():
    gains = Claim(
        name="gain", says="", test="", experiment="ropes",
        sum_of=[*better("clip_256", "clip_16", "vqa"), *better("siglip_16", "siglip_256", "vqa")],
    )  # fmt: skip
    values = {"clip_256": 0.9, "clip_16": 0.5, "siglip_16": 0.7, "siglip_256": 0.8}
    runs = [run(arm, seed, value) for arm, value in values.items() for seed in range(3)]
    (finding,) = judge([gains], Results(runs=runs))
    assert finding.effect is not None
    assert finding.effect.value == pytest.approx(0.4 - 0.1)
    # Four independent figures with half-widths of 0.01, joined over three seeds that agree.
    assert finding.effect.high - finding.effect.value == pytest.approx(0.02 / math.sqrt(3))
    assert [term.weight for term in gains.sum_of] == [1, -1, 1, -1]
    assert Term(weight=1.0, arm="clip_256", metric="vqa") in gains.sum_of
