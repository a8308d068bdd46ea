import numpy as np
import pytest

from envs.arms import HOME_JOINTS
from vla.control.limits import PANDA, Workspace
from vla.control.robot import JointState
from vla.control.safety import Breach, Check, Safety, SafetyConfig
from vla.errors import ConfigError
from vla.types import END_EFFECTOR_DELTA_7D

BOX = Workspace(
    low=(0.26, -0.34, 0.012), high=(0.74, 0.34, 0.42), max_tilt_rad=0.4, max_yaw_rad=1.6
)
INSIDE = np.array([0.5, 0.0, 0.2])
STILL = np.zeros(7)


def new_safety(**settings: float) -> Safety:
    safety = Safety(SafetyConfig(**settings), PANDA, BOX, 0.01, max_action_age_s=0.27)
    safety.restart(at())
    return safety


def at(joints: np.ndarray = HOME_JOINTS, measured_at_s: float = 0.0) -> JointState:
    return JointState(joints, STILL, 1.0, measured_at_s)


def action(**values: float) -> np.ndarray:
    names = END_EFFECTOR_DELTA_7D.names
    row = np.zeros((1, 7), dtype=np.float32)
    for name, value in values.items():
        row[0, names.index(name)] = value
    return row


def test_an_action_within_its_limits_passes_unchanged():
    safety = new_safety()
    np.testing.assert_array_equal(
        safety.admit(action(dx=0.03, gripper=1), END_EFFECTOR_DELTA_7D), action(dx=0.03, gripper=1)
    )
    assert safety.counts.clipped_actions == 0


def test_an_action_a_little_too_large_is_clipped_and_counted():
    safety = new_safety()
    admitted = safety.admit(action(dx=0.06, gripper=1.2), END_EFFECTOR_DELTA_7D)
    np.testing.assert_allclose(admitted, action(dx=0.04, gripper=1.0), rtol=1e-6)
    assert safety.counts.clipped_actions == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dz": np.nan}, "action dz = nan m in step 0 was refused; limit 0.04 m"),
        ({"dyaw": np.inf}, "action dyaw = inf rad in step 0 was refused; limit 0.2 rad"),
        ({"dx": -5.0}, "action dx = -5 m in step 0 was refused; limit 0.04 m"),
        ({"gripper": 1e9}, "action gripper = 1e+09 1 open, 0 closed in step 0 was refused"),
    ],
)
def test_absurd_numbers_refuse_the_chunk_naming_dimension_value_unit_and_limit(values, message):
    safety = new_safety()
    refused = safety.admit(action(**values), END_EFFECTOR_DELTA_7D)
    assert isinstance(refused, Breach)
    assert refused.check is Check.COMMAND
    assert message in refused.message
    assert safety.counts.refused_chunks == 1


@pytest.mark.parametrize("shape", [(0, 7), (2, 6), (7,)])
def test_a_chunk_of_another_shape_is_refused(shape):
    refused = new_safety().admit(np.zeros(shape), END_EFFECTOR_DELTA_7D)
    assert isinstance(refused, Breach)
    assert "expected (steps, 7)" in refused.message


def test_nothing_is_wrong_with_an_arm_that_stands_where_it_was_told_to():
    assert new_safety().check(at(), INSIDE, 0.0, None) is None


def test_a_measurement_that_is_not_finite_names_its_joint():
    joints = HOME_JOINTS.copy()
    joints[2] = np.nan
    breach = new_safety().check(at(joints), INSIDE, 0.0, None)
    assert breach == Breach(Check.STATE, "the measurement of joint3 is not finite")


def test_an_old_measurement_is_a_breach():
    breach = new_safety().check(at(measured_at_s=0.0), INSIDE, 0.08, None)
    assert breach is not None
    assert breach.message == "the last measurement of the arm is 80 ms old, limit 50 ms"


def test_an_action_in_progress_on_too_old_a_view_is_a_breach():
    safety = new_safety()
    assert safety.check(at(measured_at_s=0.2), INSIDE, 0.2, captured_at_s=0.0) is None
    breach = safety.check(at(measured_at_s=0.3), INSIDE, 0.3, captured_at_s=0.0)
    assert breach is not None
    assert breach.check is Check.POLICY_LATE
    assert "300 ms old, limit 270 ms" in breach.message


def test_a_joint_far_from_its_command_is_named_and_the_arm_gives_way_until_it_is_near_again():
    safety = new_safety()
    joints = HOME_JOINTS.copy()
    joints[3] += 0.15
    breach = safety.check(at(joints), INSIDE, 0.0, None)
    assert breach == Breach(Check.TRACKING, "joint4 is 0.150 rad from its command, limit 0.100 rad")
    held = 0
    while safety.check(at(joints), INSIDE, 0.0, None) is not None:
        safety.give_way(at(joints))
        held += 1
    assert abs(safety.limiter.joints[3] - joints[3]) <= 0.05
    assert 5 < held < 200


def test_a_tool_that_leaves_the_workspace_is_stopped_and_one_that_stands_there_may_come_back():
    safety = new_safety()
    assert safety.check(at(), np.array([0.75, 0.0, 0.2]), 0.0, None) is None
    breach = safety.check(at(), np.array([0.77, 0.0, 0.2]), 0.0, None)
    assert breach == Breach(
        Check.WORKSPACE, "the tool is 0.030 m beyond x = 0.740 m, slack 0.020 m"
    )
    assert safety.check(at(), np.array([0.77, 0.0, 0.2]), 0.0, None) is None
    assert safety.check(at(), np.array([0.765, 0.0, 0.2]), 0.0, None) is None


def test_an_emergency_stop_stays_until_it_is_reset():
    safety = new_safety()
    safety.emergency_stop("somebody pressed it")
    safety.emergency_stop("and again")
    for _ in range(3):
        assert safety.check(at(), INSIDE, 0.0, None) == Breach(
            Check.EMERGENCY_STOP, "somebody pressed it"
        )
    assert safety.counts.emergency_stops == 1
    safety.reset_emergency_stop()
    assert safety.check(at(), INSIDE, 0.0, None) is None


def test_late_ticks_in_a_row_hold_the_arm_and_one_in_time_frees_it():
    safety = new_safety(max_overruns=3)
    for _ in range(3):
        assert safety.check(at(), INSIDE, 0.0, None) is None
        safety.count_lateness(is_overrun=True)
    breach = safety.check(at(), INSIDE, 0.0, None)
    assert breach == Breach(
        Check.OVERRUN, "3 ticks in a row began more than one period late, limit 3"
    )
    safety.count_lateness(is_overrun=False)
    assert safety.check(at(), INSIDE, 0.0, None) is None


def test_a_target_that_is_not_finite_brakes():
    safety = new_safety()
    for _ in range(20):
        safety.follow(HOME_JOINTS + 0.5)
    speed = safety.limiter.velocity.copy()
    limited = safety.follow(np.full(7, np.nan))
    assert (np.abs(limited.velocity) < np.abs(speed)).all()


def test_the_gripper_command_stays_between_closed_and_open():
    assert [Safety.gripper(value) for value in (-1.0, 0.25, 7.0)] == [0.0, 0.25, 1.0]


def test_settings_that_would_switch_a_check_off_by_mistake_are_refused():
    with pytest.raises(
        ConfigError, match=r"safety\.max_tracking_error_rad must be positive; got 0"
    ):
        SafetyConfig(max_tracking_error_rad=0)
    with pytest.raises(ConfigError, match=r"safety\.position_margin_rad must be 0 or more"):
        SafetyConfig(position_margin_rad=-0.1)
