import numpy as np
import pytest

from vla.control.limiter import permitted_acceleration
from vla.control.limits import JOINT_LIMITS, STRAIGHT_DOWN, JointLimits, Workspace, joint_limits
from vla.control.rotation import Pose, from_rpy, to_rpy
from vla.errors import ConfigError

BOX = Workspace(low=(0.2, -0.3, 0.0), high=(0.7, 0.3, 0.4), max_tilt_rad=0.4, max_yaw_rad=1.5)


def test_an_unknown_arm_is_refused_with_the_choices():
    with pytest.raises(
        ConfigError,
        match="unknown arm 'pandda'; choose one of fr3, panda, so101, ur5e; did you mean 'panda'",
    ):
        joint_limits("pandda")


@pytest.mark.parametrize("name", sorted(JOINT_LIMITS))
def test_every_table_names_its_source_and_has_one_number_per_joint(name):
    limits = joint_limits(name)
    assert limits.source
    assert limits.num_joints == len(limits.torque)


@pytest.mark.parametrize("name", sorted(JOINT_LIMITS))
def test_every_table_says_how_fast_the_tool_may_go_and_how_hard_the_gripper_may_press(name):
    limits = joint_limits(name)
    assert limits.tool is not None
    assert limits.gripper is not None
    assert limits.tool.source
    assert limits.gripper.source


def test_the_fr3s_constant_velocities_hold_where_its_own_limits_depend_on_position():
    """Its controller's limits, from rate_limiting.h: v = -v_off + sqrt(2 a (q_max - q)), and so at the lower end."""
    offset = np.array([0.30, 0.20, 0.20, 0.30, 0.35, 0.35, 0.35])
    slope = np.array([12.0, 5.17, 7.00, 8.00, 34.0, 11.0, 34.0])
    top = np.array([2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196])
    bottom = np.array([-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196])
    fr3 = joint_limits("fr3")
    at_high = -offset + np.sqrt(slope * (top - fr3.high))
    at_low = -offset + np.sqrt(slope * (fr3.low - bottom))
    assert (np.asarray(fr3.velocity) <= np.minimum(at_high, at_low) + 2e-3).all()


@pytest.mark.parametrize("name", sorted(JOINT_LIMITS))
@pytest.mark.parametrize("servo_hz", [50, 100, 500])
def test_at_every_servo_rate_the_published_acceleration_respects_the_published_jerk(name, servo_hz):
    limits = joint_limits(name)
    np.testing.assert_array_equal(permitted_acceleration(limits, 1 / servo_hz), limits.acceleration)


def test_a_table_with_an_empty_range_is_refused():
    with pytest.raises(ConfigError, match="limits of elbow are empty"):
        JointLimits(
            names=("elbow",),
            low=(1.0,),
            high=(0.0,),
            velocity=(1.0,),
            acceleration=(1.0,),
            torque=(1.0,),
            source="x",
        )


def test_an_empty_workspace_is_refused():
    with pytest.raises(ConfigError, match="give low < high on each axis"):
        Workspace(low=(0.0, 0.0, 0.5), high=(1.0, 1.0, 0.4), max_tilt_rad=0.1, max_yaw_rad=0.1)


def test_a_pose_inside_the_workspace_is_not_changed():
    pose = Pose(np.array([0.5, 0.0, 0.1]), from_rpy(0.1, -0.2, 1.0) @ STRAIGHT_DOWN)
    clamped = BOX.clamp(pose)
    np.testing.assert_array_equal(clamped.position, pose.position)
    assert clamped.rotation is pose.rotation


def test_a_pose_outside_the_workspace_is_brought_to_its_edge():
    pose = Pose(np.array([0.9, -0.5, -0.1]), from_rpy(0.6, 0.1, -2.0) @ STRAIGHT_DOWN)
    clamped = BOX.clamp(pose)
    np.testing.assert_allclose(clamped.position, [0.7, -0.3, 0.0])
    np.testing.assert_allclose(
        to_rpy(clamped.rotation @ STRAIGHT_DOWN.T), (0.4, 0.1, -1.5), atol=1e-12
    )


def test_excess_names_the_worst_axis_and_its_bound():
    axis, excess_m, bound_m = BOX.excess(np.array([0.71, 0.0, -0.05]))
    assert (axis, bound_m) == ("z", 0.0)
    assert excess_m == pytest.approx(0.05)
    assert BOX.excess(np.array([0.5, 0.0, 0.1]))[1] == 0.0
