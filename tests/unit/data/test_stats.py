import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vla.data.stats import AbsoluteBounds, ActionStatistics, StateStatistics
from vla.errors import DatasetError
from vla.tokenizers.action_bins import ActionBins
from vla.types import END_EFFECTOR_DELTA_7D, TOOL_POSE_7D

SPEC = END_EFFECTOR_DELTA_7D
LOW, HIGH = np.array(SPEC.low), np.array(SPEC.high)


def _actions(num_frames: int = 500, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    actions = rng.uniform(LOW, HIGH, (num_frames, 7))
    actions[:, 6] = rng.integers(0, 2, num_frames)
    return actions.astype(np.float32)


def _openvla_normalize(
    actions: np.ndarray, q01: np.ndarray, q99: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Written down from prismatic/vla/datasets/rlds/utils/data_utils.py (BOUNDS_Q99)."""
    return np.where(mask, np.clip(2 * (actions - q01) / (q99 - q01 + 1e-8) - 1, -1, 1), actions)


def test_normalising_agrees_with_openvla():
    actions = _actions()
    statistics = ActionStatistics.from_array(actions, SPEC, absolute=AbsoluteBounds.PASS_THROUGH)
    np.testing.assert_allclose(statistics.q01, np.quantile(actions, 0.01, axis=0), rtol=1e-6)
    assert statistics.mask.tolist() == [True] * 6 + [False]
    expected = _openvla_normalize(actions, statistics.q01, statistics.q99, statistics.mask)
    np.testing.assert_allclose(statistics.normalize(actions), expected, atol=1e-6)


def test_the_gripper_spans_the_whole_range_of_bins_by_default():
    statistics = ActionStatistics.from_array(_actions(), SPEC)
    normalized = statistics.normalize(
        np.array([[0, 0, 0, 0, 0, 0, g] for g in (0.0, 0.5, 1.0)], np.float32)
    )
    np.testing.assert_allclose(normalized[:, 6], [-1, 0, 1], atol=1e-6)
    assert ActionBins.encode(normalized)[:, 6].tolist()[0] == 0
    assert ActionBins.encode(normalized)[:, 6].tolist()[2] >= 254


def test_a_gripper_that_never_opened_keeps_the_limits_of_the_spec_and_is_not_called_floored():
    actions = _actions()
    actions[:, 6] = 0.0
    statistics = ActionStatistics.from_array(actions, SPEC)
    assert (statistics.q01[6], statistics.q99[6]) == (0.0, 1.0)
    assert statistics.floored == []


@given(arrays(np.float64, (3, 7), elements=st.floats(-1, 1)))
def test_a_round_trip_through_bins_is_off_by_at_most_half_a_bin_of_each_range(units):
    statistics = ActionStatistics.from_array(_actions(), SPEC)
    actions = statistics.unnormalize(units)
    again = statistics.unnormalize(
        ActionBins.decode(ActionBins.encode(statistics.normalize(actions)))
    )
    half_bin = (statistics.q99 - statistics.q01) / 2 / 255
    assert (np.abs(again - actions) <= half_bin * 1.001 + 1e-6).all()


@given(arrays(np.float64, (4, 7), elements=st.floats(-10, 10)))
def test_normalised_values_never_leave_minus_one_to_one(actions):
    assert (np.abs(ActionStatistics.from_array(_actions(), SPEC).normalize(actions)) <= 1).all()


def test_a_constant_channel_gets_the_range_floor_and_decodes_to_the_constant():
    actions = _actions()
    actions[:, 3] = 0.01
    statistics = ActionStatistics.from_array(actions, SPEC, floor_fraction=1e-3)
    floor = 1e-3 * (HIGH[3] - LOW[3])
    assert statistics.floored == ["droll"]
    assert statistics.q99[3] - statistics.q01[3] == pytest.approx(floor, rel=1e-3)
    decoded = statistics.unnormalize(
        ActionBins.decode(ActionBins.encode(statistics.normalize(actions)))
    )
    assert np.abs(decoded[:, 3] - 0.01).max() <= floor


def test_noise_far_below_the_range_floor_is_not_blown_up():
    actions = _actions()
    actions[:, 4] = np.random.default_rng(0).normal(0, 1e-7, len(actions))
    statistics = ActionStatistics.from_array(actions, SPEC)
    assert np.abs(statistics.normalize(actions)[:, 4]).max() < 0.01


def test_statistics_survive_json_exactly():
    actions = ActionStatistics.from_array(_actions(), SPEC)
    states = StateStatistics.from_array(_actions(), TOOL_POSE_7D)
    assert (
        ActionStatistics.from_dict(json.loads(json.dumps(actions.to_dict()))).to_dict()
        == actions.to_dict()
    )
    assert (
        StateStatistics.from_dict(json.loads(json.dumps(states.to_dict()))).to_dict()
        == states.to_dict()
    )


def test_openvla_statistics_files_can_be_read():
    values = {name: [0.0] * 7 for name in ("mean", "std", "min", "q01")} | {
        name: [1.0] * 7 for name in ("max", "q99")
    }
    statistics = ActionStatistics.from_dict(
        {**values, "mask": [True] * 6 + [False], "num_transitions": 3}
    )
    assert statistics.unnormalize(np.zeros(7)).tolist() == [0.5] * 6 + [0.0]


def test_a_state_that_hardly_moves_is_stretched_from_a_centimetre():
    states = np.full((100, 7), 0.2)
    states[:, 0] = np.linspace(0.1, 0.5, 100)
    statistics = StateStatistics.from_array(states, TOOL_POSE_7D, range_floor=0.01)
    assert statistics.floored == list(TOOL_POSE_7D.names[1:])
    assert statistics.normalize(np.full(7, 0.2))[1] == pytest.approx(0.0, abs=1e-4)


@given(arrays(np.float64, 7, elements=st.floats(-0.9, 0.9)))
def test_states_round_trip_within_their_bounds(units):
    statistics = StateStatistics.from_array(_actions(), TOOL_POSE_7D)
    np.testing.assert_allclose(
        statistics.normalize(statistics.unnormalize(units)), units, atol=1e-4
    )


def test_a_value_that_is_not_finite_is_named():
    actions = _actions(20)
    actions[7, 2] = np.nan
    with pytest.raises(DatasetError, match=r"action dz is not finite in frame 7"):
        ActionStatistics.from_array(actions, SPEC)


def test_a_wrong_width_names_the_dimensions():
    with pytest.raises(DatasetError, match=r"gripper.*got \(20, 6\)"):
        ActionStatistics.from_array(_actions(20)[:, :6], SPEC)


def test_rest_is_the_bin_of_no_change_and_absolute_dimensions_have_none():
    rng = np.random.default_rng(0)
    spec = END_EFFECTOR_DELTA_7D
    actions = rng.uniform(spec.low, spec.high, (500, 7)).astype(np.float32)
    actions[:, 0] += 0.01  # centred elsewhere, so that the middle bin is not rest
    statistics = ActionStatistics.from_array(actions, spec)
    rest = statistics.rest_bins(spec)
    assert rest[6] == -1
    assert rest[0] < rest[1]
    moved = statistics.unnormalize(ActionBins.decode(np.maximum(rest, 0)))
    assert (np.abs(moved[:6]) <= (statistics.q99 - statistics.q01)[:6] / 255).all()
