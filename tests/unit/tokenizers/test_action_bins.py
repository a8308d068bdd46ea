import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla.tokenizers.action_bins import NUM_BINS, ActionBins, ActionLayout, ActionVocabulary

normalised = hnp.arrays(np.float64, hnp.array_shapes(max_dims=2), elements=st.floats(-1, 1))
any_action = hnp.arrays(np.float32, (7,), elements=st.floats(-1e6, 1e6, width=32, allow_nan=False))


def test_the_numbers_of_openvla():
    """Digits and ids read in openvla/openvla c8f03f4, prismatic/vla/action_tokenizer.py."""
    vocabulary = ActionVocabulary(ActionLayout.LAST_256, 32000, 1)
    bins = ActionBins.encode(np.array([[-1.0], [0.0], [1.0]]))
    assert vocabulary.ids(bins).flatten().tolist() == [31999, 31872, 31744]
    assert ActionBins.centers[127] == 0.0
    assert ActionBins.centers[0] == pytest.approx(-0.99607843, abs=1e-8)
    assert ActionBins.centers[-1] == pytest.approx(0.99607843, abs=1e-8)


def test_the_two_ends_of_the_last_bin_decode_to_the_same_value():
    vocabulary = ActionVocabulary(ActionLayout.LAST_256, 32000, 1)
    values = ActionBins.decode(vocabulary.bins(np.array([[31744], [31745]])))
    assert values[0] == values[1] == pytest.approx(0.99607843, abs=1e-7)


def test_ids_of_other_tokens_are_clipped_as_the_reference_does():
    vocabulary = ActionVocabulary(ActionLayout.LAST_256, 32000, 1)
    values = ActionBins.decode(vocabulary.bins(np.array([[5], [32000]])))
    assert values.flatten().tolist() == pytest.approx([0.99607843, -0.99607843], abs=1e-7)


def test_all_255_centres_come_back_as_themselves():
    np.testing.assert_array_equal(ActionBins.encode(ActionBins.centers), np.arange(255))


@given(normalised)
def test_a_round_trip_is_off_by_at_most_half_a_bin(values):
    error = np.abs(ActionBins.decode(ActionBins.encode(values)) - values)
    assert error.max(initial=0.0) <= ActionBins.half_bin + 1e-6


@given(any_action)
def test_encoding_clips_and_stays_within_256_bins(values):
    bins = ActionBins.encode(values)
    assert bins.min() >= 0
    assert bins.max() < NUM_BINS
    np.testing.assert_array_equal(bins, ActionBins.encode(np.clip(values, -1, 1)))


@given(hnp.arrays(np.float64, (2,), elements=st.floats(-1, 1)))
def test_a_larger_value_never_gets_a_smaller_bin(values):
    low, high = ActionBins.encode(np.sort(values))
    assert low <= high


@pytest.mark.parametrize("layout", list(ActionLayout))
@given(bins=hnp.arrays(np.int64, (3, 7), elements=st.integers(0, NUM_BINS - 1)))
def test_ids_and_bins_are_each_others_inverse_in_every_layout(layout, bins):
    vocabulary = ActionVocabulary(layout, 1000, 7)
    ids = vocabulary.ids(bins)
    np.testing.assert_array_equal(vocabulary.bins(ids), bins)
    assert ids.min() >= 1000 - NUM_BINS
    assert ids.max() < 1000 + vocabulary.num_new_ids


def test_the_user_layout_gives_each_dimension_256_new_ids_of_its_own():
    vocabulary = ActionVocabulary(ActionLayout.PER_DIMENSION, 512, 7)
    assert vocabulary.num_new_ids == 7 * 256
    first = vocabulary.ids(np.zeros(7, dtype=np.int64))
    last = vocabulary.ids(np.full(7, 255))
    assert first.tolist() == [512 + 256 * dim for dim in range(7)]
    assert last.tolist() == [512 + 256 * dim + 255 for dim in range(7)]


def test_new_ids_follow_the_text_and_are_shared_by_all_dimensions():
    vocabulary = ActionVocabulary(ActionLayout.NEW_256, 512, 3)
    assert vocabulary.num_new_ids == 256
    assert vocabulary.ids(np.array([0, 1, 255])).tolist() == [512, 513, 767]
