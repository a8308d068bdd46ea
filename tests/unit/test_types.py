import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vla.errors import ActionError
from vla.types import END_EFFECTOR_DELTA_7D, TABLETOP, TOOL_POSE_7D, ActionSpec

SPEC = END_EFFECTOR_DELTA_7D
finite_actions = arrays(np.float32, (3, 7), elements=st.floats(-10, 10, width=32))


@given(finite_actions)
def test_a_clipped_action_always_passes_the_check(actions: np.ndarray):
    clipped = SPEC.clip(actions)
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(SPEC.check(clipped), clipped)


@given(finite_actions)
def test_clipping_twice_changes_nothing_more(actions: np.ndarray):
    once = SPEC.clip(actions)
    np.testing.assert_array_equal(SPEC.clip(once), once)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_name(value: float):
    action = np.zeros(7, np.float32)
    action[4] = value
    for method in (SPEC.clip, SPEC.check):
        with pytest.raises(ActionError, match="dpitch is not finite"):
            method(action)


def test_a_value_outside_is_reported_with_its_limit_and_unit():
    action = np.zeros((2, 7), np.float32)
    action[1, 0] = 0.05
    with pytest.raises(ActionError, match=r"dx = 0\.05 m is outside \[-0\.04, 0\.04\]"):
        SPEC.check(action)


def test_rounding_at_the_limit_is_no_violation():
    action = np.asarray(SPEC.high, np.float32)
    np.testing.assert_array_equal(SPEC.check(action), action)


@pytest.mark.parametrize("shape", [(), (6,), (2, 8)])
def test_another_width_is_refused_with_the_names_expected(shape: tuple[int, ...]):
    with pytest.raises(ActionError, match="an action has 7 numbers"):
        SPEC.check(np.zeros(shape, np.float32))


def test_rest_stops_what_is_relative_and_keeps_what_is_absolute():
    current = np.full(7, 0.7, np.float32)
    np.testing.assert_allclose(SPEC.rest(current), [0, 0, 0, 0, 0, 0, 0.7], rtol=1e-6)


def test_a_specification_survives_json():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ActionSpec(**json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_a_specification_with_uneven_lengths_is_refused():
    fields = SPEC.to_dict() | {"units": ["m"]}
    with pytest.raises(ActionError, match=r"\[1, 7\]"):
        ActionSpec(**fields)


def test_the_tabletop_sees_two_cameras_and_seven_numbers_each_way():
    assert TABLETOP.camera_names == ("front", "wrist")
    assert TABLETOP.action_spec.width == TABLETOP.state_spec.width == TOOL_POSE_7D.width == 7
    assert SPEC.dt_s == pytest.approx(0.1)
