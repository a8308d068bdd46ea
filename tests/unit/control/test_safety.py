import dataclasses
import math
import re

import numpy as np
import pytest

from envs.arms import HOME_JOINTS
from vla.control.checks import ALWAYS_ON, Breach, Check, checks_by_name
from vla.control.limits import PANDA, STRAIGHT_DOWN, JointLimits, Workspace
from vla.control.robot import JointState
from vla.control.rotation import Pose, from_rpy
from vla.control.safety import AfterPolicyLoss, Safety, SafetyConfig
from vla.control.tick_checks import build_checks
from vla.errors import ConfigError
from vla.types import END_EFFECTOR_DELTA_7D

BOX = Workspace(
    low=(0.26, -0.34, 0.012), high=(0.74, 0.34, 0.42), max_tilt_rad=0.4, max_yaw_rad=1.6
)
STILL = np.zeros(7)
DT = 0.01


def tool(x: float = 0.5, y: float = 0.0, z: float = 0.2, yaw: float = 0.0) -> Pose:
    return Pose(np.array([x, y, z]), from_rpy(0.0, 0.0, yaw) @ STRAIGHT_DOWN)


INSIDE = tool()


def new_safety(limits: JointLimits = PANDA, disabled: tuple = (), **settings) -> Safety:
    config = SafetyConfig(**settings)
    safety = Safety(config, limits, BOX, DT, max_action_age_s=0.27, disabled=disabled)
    safety.restart(at())
    return safety


def at(joints: np.ndarray = HOME_JOINTS, measured_at_s: float = 0.0) -> JointState:
    return JointState(joints, STILL, 1.0, measured_at_s)


def changed(**values) -> JointState:
    return dataclasses.replace(at(), **values)


def with_joint(index: int, value: float) -> np.ndarray:
    joints = HOME_JOINTS.copy()
    joints[index] = value
    return joints


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
    safety = new_safety(disabled=(Check.TOOL_SPEED,))
    assert safety.check(at(), tool(x=0.75), 0.0, None) is None
    breach = safety.check(at(), tool(x=0.77), 0.0, None)
    assert breach == Breach(
        Check.WORKSPACE, "the tool is 0.030 m beyond x = 0.740 m, slack 0.020 m"
    )
    assert safety.check(at(), tool(x=0.77), 0.0, None) is None
    assert safety.check(at(), tool(x=0.765), 0.0, None) is None


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


def moving_safety() -> Safety:
    safety = new_safety()
    for k in range(20):
        safety.follow(HOME_JOINTS + 0.005 * k)
    assert safety.limiter.velocity.any()
    return safety


REFUSED = [
    (
        np.full(7, np.nan),
        "command_refused",
        "the target of joint1, nan rad, was refused: not finite",
    ),
    (with_joint(3, np.inf), "command_refused", "the target of joint4, inf rad, was refused"),
    (np.zeros(6), "command_refused", r"shape \(6,\) was refused; expected \(7,\)"),
    (np.zeros((1, 7)), "command_refused", r"shape \(1, 7\) was refused"),
    (
        with_joint(1, 1e9),
        "position",
        r"joint2, 1e\+09 rad, was refused: outside \[-1.7628, 1.7628\] rad",
    ),
    (
        with_joint(6, 2.0),
        "velocity",
        "joint7 was refused: it jumps as at .* rad/s, limit 2.610 rad/s",
    ),
]


@pytest.mark.parametrize(("target", "check", "message"), REFUSED)
def test_a_target_no_arm_could_follow_is_refused_with_its_reason_and_the_command_brakes(
    target, check, message
):
    safety = moving_safety()
    speed = safety.limiter.velocity.copy()
    limited = safety.follow(target)
    assert (np.abs(limited.velocity) < np.abs(speed)).all()
    assert safety.refused is not None
    assert safety.refused.check.value == check
    assert re.search(message, safety.refused.message)
    assert safety.counts.refused_targets == 1
    safety.follow(safety.limiter.joints)
    assert safety.refused is None


BREACHES = [
    (changed(joints=np.zeros(6)), Check.STATE, r"shape \(6,\) and \(7,\); expected \(7,\)"),
    (changed(fault="the bus is silent"), Check.STATE, "the bus is silent"),
    (
        changed(joints=with_joint(1, 1.9)),
        Check.POSITION,
        r"joint2 is at 1.9000 rad, outside \[-1.7628, 1.7628\] rad",
    ),
    (
        changed(velocity=np.eye(7)[2] * -2.7),
        Check.VELOCITY,
        "joint3 moves at 2.700 rad/s, limit 2.175 rad/s",
    ),
    (
        changed(joints=with_joint(1, 1.60), velocity=np.eye(7)[1] * 1.5),
        Check.VELOCITY,
        "joint2 moves at 1.500 rad/s and needs 0.300 rad to stop, 0.163 rad before the end of its range",
    ),
    (changed(gripper_force_n=90.0), Check.GRIPPER_FORCE, "presses with 90.0 N, limit 70.0 N"),
    (changed(gripper=1.3), Check.GRIPPER_WIDTH, r"0.104 m wide, outside \[0, 0.080\] m"),
    (changed(gripper=math.nan), Check.GRIPPER_WIDTH, "nan m wide"),
]


@pytest.mark.parametrize(("state", "check", "message"), BREACHES)
def test_what_is_measured_beyond_a_limit_holds_the_arm_and_is_named_with_its_unit(
    state, check, message
):
    breach = new_safety().check(state, INSIDE, 0.0, None)
    assert breach is not None
    assert breach.check is check
    assert re.search(message, breach.message)


def test_a_joint_outside_its_braking_distance_may_move_away_from_the_end_of_its_range():
    state = changed(joints=with_joint(1, 1.60), velocity=np.eye(7)[1] * -1.5)
    breach = new_safety().check(state, INSIDE, 0.0, None)
    assert breach is None or breach.check is not Check.VELOCITY


def test_a_policy_that_has_ended_is_a_breach():
    breach = new_safety().check(at(), INSIDE, 0.0, None, is_policy_alive=False)
    assert breach == Breach(Check.POLICY_ENDED, "the policy process has ended")


def test_a_tool_that_is_sent_or_turned_too_fast_is_a_breach():
    safety = new_safety()
    assert safety.check(at(), INSIDE, 0.0, None) is None
    breach = safety.check(at(), tool(x=0.52), 0.0, None)
    assert breach == Breach(Check.TOOL_SPEED, "the tool moves at 2.000 m/s, limit 1.700 m/s")
    assert safety.check(at(), tool(x=0.52), 0.0, None) is None
    breach = safety.check(at(), tool(x=0.52, yaw=0.03), 0.0, None)
    assert breach == Breach(Check.TOOL_SPEED, "the tool turns at 3.000 rad/s, limit 2.500 rad/s")


def test_the_tools_and_the_grippers_limits_can_be_tightened_but_not_widened():
    tight = new_safety(max_tool_speed_m_s=0.5, max_grip_force_n=10.0)
    tight.check(at(), INSIDE, 0.0, None)
    breach = tight.check(at(), tool(x=0.51), 0.0, None)
    assert breach is not None
    assert "limit 0.500 m/s" in breach.message
    breach = tight.check(changed(gripper_force_n=11.0), tool(x=0.51), 0.0, None)
    assert breach is not None
    assert "limit 10.0 N" in breach.message
    wide = new_safety(max_tool_speed_m_s=50.0)
    wide.check(at(), INSIDE, 0.0, None)
    assert wide.check(at(), tool(x=0.52), 0.0, None) is not None


def test_fingers_that_pressed_too_hard_close_no_further_until_told_to_open():
    safety = new_safety()
    assert safety.grip(0.0) == 0.0
    safety.check(changed(gripper=0.4, gripper_force_n=90.0), INSIDE, 0.0, None)
    assert safety.grip(0.0) == 0.4
    assert safety.grip(0.2) == 0.4
    assert safety.grip(0.7) == 0.7
    assert safety.grip(0.0) == 0.0


def test_the_gripper_command_stays_between_closed_and_open_and_opens_when_not_a_number():
    safety = new_safety()
    assert [safety.grip(value) for value in (-1.0, 0.25, 7.0, math.nan)] == [0.0, 0.25, 1.0, 1.0]


def test_checks_are_made_in_this_order():
    table = build_checks(SafetyConfig(), PANDA, BOX, 0.27)
    assert [check.check.value for check in table] == [
        "state_invalid",
        "state_late",
        "policy_late",
        "policy_ended",
        "position",
        "velocity",
        "tracking_error",
        "workspace",
        "tool_speed",
        "gripper_force",
        "gripper_width",
        "emergency_stop",
        "overrun",
    ]


def test_the_first_check_that_fails_is_the_one_that_is_named():
    safety = new_safety()
    safety.emergency_stop("pressed")
    breach = safety.check(changed(joints=with_joint(1, 1.9)), INSIDE, 0.0, None)
    assert breach is not None
    assert breach.check is Check.POSITION


def test_a_check_is_turned_off_by_its_name_alone():
    far = changed(joints=with_joint(3, HOME_JOINTS[3] + 0.15))
    assert new_safety().check(far, INSIDE, 0.0, None) is not None
    off = checks_by_name(["tracking_error"])
    assert new_safety(disabled=tuple(off)).check(far, INSIDE, 0.0, None) is None


def test_a_check_that_is_unknown_or_must_stay_cannot_be_turned_off():
    with pytest.raises(
        ConfigError, match=r"unknown check 'tracking'.*did you mean 'tracking_error'"
    ):
        checks_by_name(["tracking"])
    for check in ALWAYS_ON:
        with pytest.raises(ConfigError, match="cannot be turned off"):
            checks_by_name([check.value])


@pytest.mark.parametrize("check", [Check.POLICY_LATE, Check.POLICY_ENDED])
def test_a_lost_policy_is_latched_where_the_settings_say_so_and_nothing_else_is(check):
    safety = new_safety(after_policy_loss=AfterPolicyLoss.REFUSE)
    safety.lose_policy(Breach(Check.TRACKING, "joint1 is far"))
    assert safety.check(at(), INSIDE, 0.0, None) is None
    safety.lose_policy(Breach(check, "it is late"))
    breach = safety.check(at(), INSIDE, 0.0, None)
    assert breach is not None
    assert breach.check is check
    assert "held until the stop is reset" in breach.message
    safety.reset_emergency_stop()
    assert safety.check(at(), INSIDE, 0.0, None) is None
    trusting = new_safety()
    trusting.lose_policy(Breach(check, "it is late"))
    assert trusting.check(at(), INSIDE, 0.0, None) is None


def test_settings_that_would_switch_a_check_off_by_mistake_are_refused():
    with pytest.raises(
        ConfigError, match=r"safety\.max_tracking_error_rad must be positive; got 0"
    ):
        SafetyConfig(max_tracking_error_rad=0)
    with pytest.raises(ConfigError, match=r"safety\.position_margin_rad must be 0 or more"):
        SafetyConfig(position_margin_rad=-0.1)
