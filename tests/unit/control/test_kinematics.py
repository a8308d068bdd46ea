import mujoco
import numpy as np
import pytest

from envs.arms import HOME_JOINTS, HOME_ROTATION, arm_only_xml
from vla.control.kinematics import ArmKinematics
from vla.control.limits import PANDA
from vla.control.rotation import Pose, exp, log
from vla.errors import RobotError

LOW, HIGH = np.asarray(PANDA.low) + 0.02, np.asarray(PANDA.high) - 0.02


@pytest.fixture(scope="module")
def arm() -> ArmKinematics:
    model = mujoco.MjModel.from_xml_string(arm_only_xml())
    return ArmKinematics(model, PANDA.names, "tool", LOW, HIGH, HOME_JOINTS)


def test_at_home_the_tool_points_straight_down(arm):
    np.testing.assert_allclose(arm.pose(HOME_JOINTS).rotation, HOME_ROTATION, atol=1e-3)


def test_a_goal_a_few_centimetres_away_is_reached(arm):
    rng = np.random.default_rng(0)
    joints = HOME_JOINTS
    for _ in range(30):
        here = arm.pose(joints)
        goal = Pose(
            here.position + rng.uniform(-0.03, 0.03, 3),
            exp(rng.uniform(-0.1, 0.1, 3)) @ HOME_ROTATION,
        )
        joints = arm.solve(joints, goal)
        there = arm.pose(joints)
        np.testing.assert_allclose(there.position, goal.position, atol=1e-3)
        assert np.abs(log(there.rotation @ goal.rotation.T)).max() < 5e-3
        joints = HOME_JOINTS


def test_solutions_keep_the_joint_limits_even_for_goals_out_of_reach(arm):
    goal = Pose(np.array([3.0, 0.0, -2.0]), HOME_ROTATION)
    joints = HOME_JOINTS
    for _ in range(100):
        joints = arm.solve(joints, goal)
        assert np.isfinite(joints).all()
        assert (joints >= LOW).all()
        assert (joints <= HIGH).all()


def test_the_spare_joint_goes_back_to_the_rest_posture(arm):
    goal = arm.pose(HOME_JOINTS)
    joints = HOME_JOINTS + np.array([0.2, 0.0, -0.2, 0.0, 0.0, 0.0, 0.0])
    for _ in range(200):
        joints = arm.solve(joints + 1e-3, goal)
    assert np.abs(joints - HOME_JOINTS).max() < 0.05


def test_a_model_without_the_named_parts_is_refused():
    model = mujoco.MjModel.from_xml_string(arm_only_xml())
    with pytest.raises(RobotError, match="the model of the robot has no flange, joint9"):
        ArmKinematics(model, ("joint1", "joint9"), "flange", LOW[:2], HIGH[:2], HOME_JOINTS[:2])
