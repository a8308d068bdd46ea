import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import VlaError
from vla.evaluation.estimates import (
    Estimate,
    bare,
    bootstrap,
    contrast_over_seeds,
    difference_over_seeds,
    mean_by_picture,
    mean_of,
    over_seeds,
    share,
)
from vla.evaluation.intervals import wilson


def run(value: float, half: float = 0.0) -> Estimate:
    return Estimate(
        value=value, low=value - half, high=value + half, n=100, num_pictures=100, method="given"
    )


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_of_independent_outcomes_has_wilsons_interval(counts):
    right, total = counts
    estimate = share([True] * right + [False] * (total - right))
    known = wilson(right, total)
    assert (estimate.value, estimate.n) == (known.success_rate, total)
    assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high))


def test_ten_questions_that_stand_or_fall_together_are_worth_one():
    outcomes = [True, True, True, False] * 10
    pictures = list(range(4)) * 10
    together = share(outcomes, pictures)
    assert (together.n, together.num_pictures) == (40, 4)
    # All variance lies between pictures: as wide as four outcomes, up to the factor 4 / 3 of an unbiased variance.
    assert together.high - together.low > wilson(3, 4).high - wilson(3, 4).low
    assert together.high - together.low > 2 * (wilson(30, 40).high - wilson(30, 40).low)


def test_questions_that_vary_within_pictures_are_worth_their_number():
    outcomes = [True] * 20 + [False] * 20
    estimate = share(outcomes, list(range(20)) * 2)  # one right and one wrong in every picture
    known = wilson(20, 40)
    assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high))


def test_all_right_answers_are_as_certain_as_there_are_pictures():
    estimate = share([True] * 50, [index // 10 for index in range(50)])
    assert (estimate.low, estimate.high) == pytest.approx((wilson(5, 5).low, 1.0))


def test_no_outcomes_mean_no_figure():
    assert math.isnan(share([]).value)
    assert math.isnan(mean_by_picture([]).value)


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(3).normal(0.6, 0.1, size=400)
    estimate = mean_by_picture(values.tolist())
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.002)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.002)


def test_copies_of_a_picture_add_no_certainty_when_it_is_drawn_whole():
    values = [0.2, 0.9, 0.4, 0.7, 0.6]
    copied = mean_by_picture(values * 20, list(range(5)) * 20)
    apart = mean_by_picture(values * 20)
    once = mean_by_picture(values)
    assert copied.high - copied.low == pytest.approx(once.high - once.low)
    assert copied.high - copied.low > 3 * (apart.high - apart.low)


def test_a_bootstrap_is_the_same_for_the_same_seed_and_skips_draws_without_a_figure():
    def ratio(copies):
        return float(copies[0] / copies[1]) if copies[1] else math.nan

    one, same = bootstrap(ratio, 2, 2, seed=1), bootstrap(ratio, 2, 2, seed=1)
    assert one == same
    assert math.isfinite(one.low)
    assert math.isfinite(one.high)


def test_the_interval_over_three_seeds_is_students():
    estimate = over_seeds([run(0.5), run(0.6), run(0.7)])
    assert estimate.value == pytest.approx(0.6)
    assert estimate.high - 0.6 == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert (estimate.n, estimate.num_pictures) == (300, 3)


def test_seeds_that_agree_by_chance_keep_the_interval_of_their_pictures():
    estimate = over_seeds([run(0.6, 0.09)] * 3)
    assert estimate.high - estimate.value == pytest.approx(0.09 / math.sqrt(3))


def test_one_seed_keeps_its_own_interval():
    assert over_seeds([run(0.6, 0.1)]) == run(0.6, 0.1)


def test_a_difference_pairs_the_seeds():
    hard_and_easy = [run(0.2), run(0.5), run(0.8)]
    better = [run(0.31), run(0.60), run(0.89)]
    estimate = difference_over_seeds(hard_and_easy, better)
    assert estimate.value == pytest.approx(0.1)
    assert (
        0.0 < estimate.low < 0.1 < estimate.high < 0.2
    )  # though the seeds themselves differ by 0.6
    with pytest.raises(VlaError, match="same seeds"):
        difference_over_seeds(hard_and_easy, better[:2])


def test_a_contrast_of_two_is_newcombes_difference():
    one = contrast_over_seeds([(-1.0, [run(0.4, 0.03)]), (1.0, [run(0.7, 0.04)])])
    assert (one.value, one.low, one.high) == pytest.approx((0.3, 0.25, 0.35))


def test_a_contrast_can_ask_whether_two_differences_differ():
    grown, small = [run(0.8), run(0.9), run(0.85)], [run(0.5), run(0.6), run(0.55)]
    flat = [run(0.7), run(0.7), run(0.7)]
    estimate = contrast_over_seeds([(1.0, grown), (-1.0, small), (-1.0, flat), (1.0, flat)])
    assert estimate.value == pytest.approx(0.3)
    assert estimate.low == pytest.approx(0.3)  # every seed says the same, and runs had no interval


def test_the_mean_of_figures_counts_each_alike_and_joins_their_intervals():
    many = Estimate(value=0.8, low=0.7, high=0.9, n=100, num_pictures=100, method="Wilson")
    few = Estimate(value=0.2, low=0.0, high=0.5, n=5, num_pictures=5, method="Wilson")
    mean = mean_of([many, few])
    assert mean.value == pytest.approx(0.5)
    assert mean.low == pytest.approx(0.5 - math.hypot(0.1, 0.2) / 2)
    assert mean.high == pytest.approx(0.5 + math.hypot(0.1, 0.3) / 2)
    assert mean.n == 105
    with pytest.raises(VlaError, match="none"):
        mean_of([])


def test_bare_figures_leave_their_interval_to_the_seeds():
    alone = over_seeds([bare(0.4)])
    assert (alone.low, alone.high) == (-math.inf, math.inf)
    both = over_seeds([bare(0.4), bare(0.6)])
    assert both.high - both.value == pytest.approx(12.706 * 0.1)
    assert math.isinf(contrast_over_seeds([(1.0, [bare(0.9)]), (-1.0, [bare(0.1)])]).low)
