import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import VlaError
from vla.evaluation.intervals import compare_paired, mcnemar_p_value, wilson


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_bounds(successes, episodes, low, high):
    rate = wilson(successes, episodes)
    assert rate.success_rate == successes / episodes
    assert rate.low == pytest.approx(low, abs=5e-5)
    assert rate.high == pytest.approx(high, abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_stays_in_the_unit_interval_around_the_rate(counts):
    rate = wilson(*counts)
    assert 0 <= rate.low <= rate.success_rate <= rate.high <= 1
    assert rate.low < rate.high


def test_no_episodes_mean_no_rate_and_no_knowledge():
    rate = wilson(0, 0)
    assert math.isnan(rate.success_rate)
    assert (rate.low, rate.high) == (0.0, 1.0)


def test_more_successes_than_episodes_are_refused():
    with pytest.raises(VlaError, match="11 successes of 10"):
        wilson(11, 10)


def test_mcnemar_is_an_exact_two_sided_sign_test():
    assert mcnemar_p_value(0, 0) == 1.0
    assert mcnemar_p_value(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_p_value(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar_p_value(3, 3) == 1.0


def test_a_paired_comparison_counts_gained_and_lost_seeds():
    first = [False] * 40 + [True] * 10
    second = [True] * 30 + [False] * 10 + [True] * 8 + [False] * 2
    comparison = compare_paired(first, second)
    assert (comparison.gained, comparison.lost, comparison.seeds) == (30, 2, 50)
    assert comparison.difference == pytest.approx(0.56)
    assert 0.3 < comparison.low < 0.56 < comparison.high < 0.8
    assert comparison.p_value < 1e-6


def test_pairing_gives_a_narrower_interval_than_two_independent_rates():
    rng = np.random.default_rng(0)
    first = list(rng.random(200) < 0.5)
    second = [outcome or bool(rng.random() < 0.1) for outcome in first]
    comparison = compare_paired(first, second)
    independent = wilson(sum(first), 200)
    assert comparison.high - comparison.low < independent.high - independent.low


def test_the_paired_interval_is_newcombes():
    # Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10: 36 pairs both, 12 and 2 one alone, 0 neither.
    first = [True] * 36 + [False] * 12 + [True] * 2
    second = [True] * 36 + [True] * 12 + [False] * 2
    comparison = compare_paired(first, second)
    assert comparison.low == pytest.approx(0.0569, abs=5e-5)
    assert comparison.high == pytest.approx(0.3404, abs=5e-5)


def test_the_paired_interval_keeps_a_width_when_every_seed_was_gained():
    comparison = compare_paired([False] * 60, [True] * 60)
    assert comparison.difference == comparison.high == 1.0
    assert 0.9 < comparison.low < 0.93


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_the_paired_interval_holds_the_difference_and_turns_around_with_it(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = compare_paired(first, second), compare_paired(second, first)
    assert -1 <= there.low <= there.difference <= there.high <= 1
    assert there.low < there.high
    assert (back.low, back.high) == (pytest.approx(-there.high), pytest.approx(-there.low))


def test_outcomes_of_different_seeds_cannot_be_paired():
    with pytest.raises(VlaError, match="got 2 and 3"):
        compare_paired([True, False], [True, False, True])
