import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.data.mixture import Mixture, split_episodes
from vla.errors import ConfigError


def _pools(*sizes: int) -> list[np.ndarray]:
    starts = np.cumsum([0, *sizes])
    return [np.arange(a, b) for a, b in itertools.pairwise(starts)]


def test_an_epoch_shows_every_frame_exactly_once():
    mixture = Mixture(_pools(10, 7), [1.0, 1.0], seed=0)
    assert sorted(mixture.take(0, 17)) == list(range(17))
    assert sorted(mixture.take(17, 17)) == list(range(17))


def test_epochs_differ_and_datasets_are_interleaved():
    mixture = Mixture(_pools(50, 50), [1.0, 1.0], seed=0)
    first, second = mixture.take(0, 100), mixture.take(100, 100)
    assert (first != second).any()
    assert 10 < (first[:50] < 50).sum() < 40


@settings(max_examples=30)
@given(st.integers(0, 200), st.integers(1, 60))
def test_any_stretch_can_be_looked_up_without_what_came_before(start, count):
    whole = Mixture(_pools(13, 5), [1.0, 0.6], seed=3).take(0, 300)
    np.testing.assert_array_equal(
        Mixture(_pools(13, 5), [1.0, 0.6], seed=3).take(start, count), whole[start : start + count]
    )


def test_a_weight_is_passes_per_epoch_and_every_frame_comes_equally_often():
    mixture = Mixture(_pools(8, 6), [0.25, 2.0], seed=1)
    assert len(mixture) == 2 + 12
    counts = np.bincount(mixture.take(0, 4 * len(mixture)), minlength=14)
    assert counts.tolist() == [1] * 8 + [8] * 6


def test_the_seed_decides_the_order():
    orders = [Mixture(_pools(40), [1.0], seed=seed).take(0, 40).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -2.0]])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ConfigError, match=r"one positive weight per dataset \(2\)"):
        Mixture(_pools(4, 4), weights, seed=0)


def test_a_scene_is_held_out_with_all_its_episodes():
    scenes = np.repeat(np.arange(200), 2)
    held_out = split_episodes(scenes, 0.2, seed=0)
    assert (held_out[::2] == held_out[1::2]).all()
    assert 20 < held_out[::2].sum() < 60


def test_the_split_of_old_scenes_does_not_change_when_a_dataset_grows():
    np.testing.assert_array_equal(
        split_episodes(np.arange(100), 0.1, seed=5),
        split_episodes(np.arange(300), 0.1, seed=5)[:100],
    )


@pytest.mark.parametrize("num_scenes", [2, 3, 5])
def test_small_datasets_keep_something_on_both_sides(num_scenes):
    for seed in range(20):
        for fraction in (0.01, 0.5, 0.99):
            held_out = split_episodes(np.arange(num_scenes), fraction, seed)
            assert 0 < held_out.sum() < num_scenes


def test_no_fraction_holds_nothing_out():
    assert not split_episodes(np.arange(50), 0.0, seed=0).any()
