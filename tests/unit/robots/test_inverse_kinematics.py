import numpy as np
import pytest

from vla.control.limits import SO101, STRAIGHT_DOWN
from vla.control.rotation import Pose
from vla.errors import ConfigError, RobotError
from vla.robots import so101
from vla.robots.ik_config import InverseKinematicsConfig, Priority
from vla.robots.inverse_kinematics import LimitedKinematics

READY = np.array(so101.READY_JOINTS)
LONG_S = 10.0


def build(priority: Priority = Priority.POSITION, duration_s: float = LONG_S) -> LimitedKinematics:
    return LimitedKinematics(
        so101.build_model(),
        so101.TOOL_SITE,
        SO101,
        duration_s=duration_s,
        margin_rad=0.02,
        config=InverseKinematicsConfig(priority=priority),
    )


@pytest.fixture(scope="module")
def goals() -> list[Pose]:
    rng = np.random.default_rng(0)
    places = rng.uniform([0.15, -0.15, 0.05], [0.29, 0.15, 0.2], (30, 3))
    return [Pose(place, STRAIGHT_DOWN) for place in places]


def test_a_pose_that_joints_give_is_found_again():
    kinematics = build()
    joints = READY + np.array([0.2, 0.1, -0.1, -0.2, 0.3])
    solved = kinematics.solve(READY, kinematics.pose(joints))
    np.testing.assert_allclose(solved, joints, atol=0.01)
    assert kinematics.residual.position_m < 1e-3


def test_with_priority_on_position_every_place_is_reached(goals):
    kinematics = build(Priority.POSITION)
    left = []
    for goal in goals:
        reached = kinematics.pose(kinematics.solve(READY, goal))
        left.append(np.linalg.norm(reached.position - goal.position))
        assert left[-1] == pytest.approx(kinematics.residual.position_m, abs=1e-9)
    assert max(left) < 1e-3


def test_with_priority_on_orientation_the_tool_is_turned_as_asked(goals):
    kinematics = build(Priority.ORIENTATION)
    for goal in goals:
        kinematics.solve(READY, goal)
        assert kinematics.residual.orientation_rad < 0.02


def test_five_joints_leave_something_over_and_say_how_much(goals):
    kinematics = build(Priority.POSITION)
    left = []
    for goal in goals:
        kinematics.solve(READY, goal)
        left.append(kinematics.residual.orientation_rad)
    assert max(left) > 0.3


def test_no_joint_leaves_its_range_however_far_the_goal(goals):
    kinematics = build()
    for place in ([3.0, 0.0, 0.0], [-1.0, 2.0, -2.0], [0.0, 0.0, 5.0]):
        joints = kinematics.solve(READY, Pose(np.array(place), STRAIGHT_DOWN))
        assert (joints >= np.asarray(SO101.low) + 0.02).all()
        assert (joints <= np.asarray(SO101.high) - 0.02).all()


def test_no_joint_goes_further_than_its_speed_permits(goals):
    kinematics = build(duration_s=0.1)
    for goal in goals:
        way = np.abs(kinematics.solve(READY, goal) - READY)
        assert (way <= 0.1 * np.asarray(SO101.velocity) + 1e-9).all()


def test_a_start_beyond_the_range_is_brought_inside():
    kinematics = build()
    joints = kinematics.solve(np.full(5, 9.0), kinematics.pose(READY))
    assert np.isfinite(joints).all()
    assert (joints <= np.asarray(SO101.high)).all()


def test_a_model_without_the_tool_is_refused():
    with pytest.raises(RobotError, match="has no flange"):
        LimitedKinematics(so101.build_model(), "flange", SO101, duration_s=1.0)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="max_iterations of 1 or more"):
        InverseKinematicsConfig(max_iterations=0)
