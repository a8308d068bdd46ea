import numpy as np
import pytest

from envs.arms import HOME_JOINTS, HOME_ROTATION, JOINT_HIGH, JOINT_LOW
from envs.controller import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from envs.kinematics import ArmKinematics
from envs.rotations import from_rpy


@pytest.fixture(scope="module")
def kinematics() -> ArmKinematics:
    return ArmKinematics()


def test_at_home_the_tool_points_straight_down_over_the_table(kinematics):
    position, rotation = kinematics.tool_pose(HOME_JOINTS)
    np.testing.assert_allclose(position, [0.47, 0.0, 0.20], atol=1e-3)
    np.testing.assert_allclose(rotation, HOME_ROTATION, atol=1e-3)


def test_the_flange_agrees_with_frankas_denavit_hartenberg_table(kinematics):
    """Modified DH of the Panda: (a, d, alpha) per joint, then 0.107 m flange, 45 degrees and 0.1034 m to the tool."""
    table = [
        (0, 0.333, 0),
        (0, 0, -1),
        (0, 0.316, 1),
        (0.0825, 0, 1),
        (-0.0825, 0.384, -1),
        (0, 0, 1),
        (0.088, 0, 1),
    ]
    joints = np.array([0.3, -0.4, 0.2, -2.0, 0.5, 2.1, 0.9])
    pose = np.eye(4)
    for (a, d, quarter_turns), q in zip(table, joints, strict=True):
        c, s, alpha = np.cos(q), np.sin(q), quarter_turns * np.pi / 2
        ca, sa = np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array(
            [
                [c, -s, 0, a],
                [s * ca, c * ca, -sa, -d * sa],
                [s * sa, c * sa, ca, d * ca],
                [0, 0, 0, 1],
            ]
        )
    tool = pose @ [0, 0, 0.107 + 0.1034, 1]
    np.testing.assert_allclose(kinematics.tool_pose(joints)[0], tool[:3], atol=1e-6)


def test_solved_joints_bring_the_tool_anywhere_in_the_workspace(kinematics):
    rng = np.random.default_rng(0)
    for _ in range(30):
        position = rng.uniform(WORKSPACE_LOW_M + 0.02, WORKSPACE_HIGH_M - 0.08)
        rotation = from_rpy(0.0, 0.0, rng.uniform(-1.2, 1.2)) @ HOME_ROTATION
        joints = kinematics.solve(HOME_JOINTS, position, rotation, max_iterations=60)
        reached, turned = kinematics.tool_pose(joints)
        np.testing.assert_allclose(reached, position, atol=2e-3)
        np.testing.assert_allclose(turned, rotation, atol=5e-3)


def test_joints_stay_inside_their_limits_even_for_poses_out_of_reach(kinematics):
    for position in ([2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.5, 0.5, 1.5]):
        joints = kinematics.solve(HOME_JOINTS, np.array(position), HOME_ROTATION, max_iterations=40)
        assert (joints > JOINT_LOW).all()
        assert (joints < JOINT_HIGH).all()
