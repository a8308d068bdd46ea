import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vla.control.rotation import exp, from_rpy, log, to_rpy

angle = st.floats(-1.5, 1.5)


@given(st.lists(angle, min_size=3, max_size=3))
def test_exp_and_log_are_inverse_and_exp_is_a_rotation(vector):
    rotation = exp(np.array(vector))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
    np.testing.assert_allclose(log(rotation), vector, atol=1e-7)


@given(angle, angle, st.floats(-3.1, 3.1))
def test_roll_pitch_yaw_round_trip(roll, pitch, yaw):
    np.testing.assert_allclose(to_rpy(from_rpy(roll, pitch, yaw)), (roll, pitch, yaw), atol=1e-9)


def test_exp_turns_about_its_axis_by_the_right_hand_rule():
    turned = exp(np.array([0.0, 0.0, np.pi / 2])) @ np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(turned, [0.0, 1.0, 0.0], atol=1e-12)


def test_tiny_turns_keep_their_first_order():
    vector = np.array([1e-12, -2e-12, 3e-12])
    np.testing.assert_allclose(log(exp(vector)), vector, rtol=1e-3)
