import numpy as np
import pytest

from vla.control.limits import JOINT_LIMITS, STRAIGHT_DOWN, JointLimits, Workspace, joint_limits
from vla.control.rotation import Pose, from_rpy, to_rpy
from vla.errors import ConfigError

BOX = Workspace(low=(0.2, -0.3, 0.0), high=(0.7, 0.3, 0.4), max_tilt_rad=0.4, max_yaw_rad=1.5)


def test_an_unknown_arm_is_refused_with_the_choices():
    with pytest.raises(
        ConfigError, match="unknown arm 'pandda'; choose one of panda; did you mean 'panda'"
    ):
        joint_limits("pandda")


@pytest.mark.parametrize("name", sorted(JOINT_LIMITS))
def test_every_table_names_its_source_and_has_one_number_per_joint(name):
    limits = joint_limits(name)
    assert limits.source
    assert limits.num_joints == len(limits.torque)


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
