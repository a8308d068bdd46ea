import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from envs.rotations import (
    from_rotation_vector,
    from_rpy,
    look_at,
    to_rotation_vector,
    to_rpy,
    wrap,
)

ANGLE = st.floats(-3.1, 3.1)


@given(ANGLE, st.floats(-1.5, 1.5), ANGLE)
def test_roll_pitch_yaw_survive_the_round_trip(roll, pitch, yaw):
    np.testing.assert_allclose(to_rpy(from_rpy(roll, pitch, yaw)), [roll, pitch, yaw], atol=1e-9)


@given(ANGLE, st.floats(-1.5, 1.5), ANGLE)
def test_a_rotation_vector_gives_back_its_rotation(roll, pitch, yaw):
    rotation = from_rpy(roll, pitch, yaw)
    np.testing.assert_allclose(
        from_rotation_vector(to_rotation_vector(rotation)), rotation, atol=1e-6
    )


@given(st.floats(-50, 50), st.sampled_from([math.pi / 2, math.pi, 2 * math.pi]))
def test_wrapping_shifts_by_whole_periods_into_half_a_period_around_zero(angle, period):
    wrapped = wrap(angle, period)
    assert -period / 2 <= wrapped <= period / 2
    assert math.isclose((angle - wrapped) / period, round((angle - wrapped) / period), abs_tol=1e-9)


def test_a_camera_looks_along_its_negative_z_with_up_upwards():
    rotation = look_at(np.array([1.0, 0.0, 1.0]), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(-rotation[:, 2], np.array([-1.0, 0.0, -1.0]) / math.sqrt(2))
    assert rotation[2, 1] > 0.0
