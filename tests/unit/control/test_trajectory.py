import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.arms import HOME_JOINTS
from vla.control.limits import PANDA
from vla.control.rotation import Pose, exp, log
from vla.control.trajectory import JointTrajectory, goal_of, held, leashed

DT, PERIOD = 0.01, 0.1
START = np.array([0.0, -0.03, 0.0, -2.4, 0.0, 2.4, 0.8])
VELOCITY, ACCELERATION = np.asarray(PANDA.velocity), np.asarray(PANDA.acceleration)


def sample(trajectory: JointTrajectory, count: int) -> np.ndarray:
    return np.array([trajectory.advance(DT) for _ in range(count)])


def test_a_small_move_arrives_after_one_action_period_and_stays():
    trajectory = JointTrajectory(PANDA, PERIOD)
    goal = START + 0.002
    trajectory.begin(START, np.zeros(7), goal, None)
    points = sample(trajectory, 15)
    assert trajectory.has_ended
    np.testing.assert_allclose(points[9:], np.broadcast_to(goal, (6, 7)), atol=1e-12)
    assert (np.diff(points, axis=0) >= -1e-15).all()


def test_an_action_has_ended_after_its_period_even_when_the_way_takes_longer():
    trajectory = JointTrajectory(PANDA, PERIOD)
    trajectory.begin(START, np.zeros(7), START + 0.1, None)
    points = sample(trajectory, 10)
    assert trajectory.has_ended
    assert (points[-1] < START + 0.09).all()
    np.testing.assert_allclose(sample(trajectory, 100)[-1], START + 0.1, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(
    way=st.lists(st.floats(-0.2, 0.2), min_size=7, max_size=7),
    onward=st.lists(st.floats(-0.2, 0.2), min_size=7, max_size=7),
    speed=st.floats(0.0, 0.4),
)
def test_a_planned_way_keeps_velocity_and_acceleration_limits(way, onward, speed):
    trajectory = JointTrajectory(PANDA, PERIOD)
    goal = START + np.array(way)
    velocity = speed * np.sign(way)
    trajectory.begin(START, velocity, goal, goal + np.array(onward))
    points = np.vstack([START, sample(trajectory, 300)])
    duration = round(trajectory._duration_s / DT)
    velocities = np.diff(points[:duration], axis=0) / DT
    assert (np.abs(velocities) <= VELOCITY).all()
    assert (np.abs(np.diff(velocities, axis=0)) / DT <= ACCELERATION).all()


def test_all_joints_slow_down_together_so_that_the_way_is_kept():
    trajectory = JointTrajectory(PANDA, PERIOD)
    way = np.array([0.01, 0.2, 0.0, -0.05, 0.02, 0.1, 0.0])
    trajectory.begin(START, np.zeros(7), START + way, None)
    for point in sample(trajectory, 60):
        progress = (point - START)[1] / way[1]
        np.testing.assert_allclose(point - START, progress * way, atol=1e-12)


def speed_at_goal(following: np.ndarray) -> np.ndarray:
    trajectory = JointTrajectory(PANDA, PERIOD)
    goal = START + 0.005
    trajectory.begin(START, np.full(7, 0.05), goal, goal + following)
    end = trajectory._duration_s
    before = trajectory.advance(end - 1e-6)
    return (trajectory.advance(1e-6) - before) / 1e-6


def test_a_move_that_goes_on_passes_its_goal_at_speed():
    np.testing.assert_allclose(speed_at_goal(np.full(7, 0.005)), 0.05, rtol=1e-3)


def test_a_move_that_turns_back_or_ends_stops_at_its_goal():
    np.testing.assert_allclose(speed_at_goal(np.full(7, -0.005)), 0.0, atol=1e-4)
    np.testing.assert_allclose(speed_at_goal(np.zeros(7)), 0.0, atol=1e-4)


def test_deltas_add_up_along_the_base_axes():
    anchor = Pose(np.array([0.5, 0.0, 0.1]), np.diag([1.0, -1.0, -1.0]))
    down = np.array([0.0, 0.0, -0.02, 0.0, 0.0, 0.0, 1.0])
    turn = np.array([0.01, 0.0, 0.0, 0.0, 0.0, 0.2, 1.0])
    goal = goal_of(anchor, [down, turn, turn])
    np.testing.assert_allclose(goal.position, [0.52, 0.0, 0.08])
    np.testing.assert_allclose(
        goal.rotation, exp(np.array([0, 0, 0.4])) @ anchor.rotation, atol=1e-12
    )


def test_a_pose_within_the_leash_is_left_alone_and_one_beyond_is_pulled_in():
    anchor = Pose(np.zeros(3), np.eye(3))
    near = Pose(np.array([0.01, 0.0, 0.0]), exp(np.array([0.0, 0.1, 0.0])))
    assert leashed(near, anchor, 0.03, 0.3) is near
    far = leashed(
        Pose(np.array([0.0, 0.4, 0.3]), exp(np.array([0.0, 1.0, 0.0]))), anchor, 0.03, 0.3
    )
    np.testing.assert_allclose(far.position, [0.0, 0.024, 0.018])
    np.testing.assert_allclose(log(far.rotation), [0.0, 0.3, 0.0], atol=1e-12)


def test_before_any_action_the_next_may_begin():
    assert JointTrajectory(PANDA, PERIOD).has_ended
    trajectory = JointTrajectory(PANDA, PERIOD)
    trajectory.begin(START, np.zeros(7), START, None)
    trajectory.advance(DT)
    assert not trajectory.has_ended
    assert trajectory.advance(0.0) == pytest.approx(START)


def test_in_between_the_tool_is_near_the_straight_line_and_the_slerp(make_bench):
    arm = make_bench().arm.kinematics
    start = arm.pose(HOME_JOINTS)
    goal = goal_of(start, [np.array([0.03, 0.02, -0.02, 0.0, 0.0, 0.2])])
    trajectory = JointTrajectory(PANDA, 0.1)
    still = np.zeros(7)
    trajectory.begin(HOME_JOINTS, still, arm.solve(HOME_JOINTS, goal), None)
    turn = log(goal.rotation @ start.rotation.T)
    way = goal.position - start.position
    for _ in range(40):
        pose = arm.pose(trajectory.advance(0.01))
        share = float((pose.position - start.position) @ way / (way @ way))
        assert np.abs(pose.position - (start.position + share * way)).max() < 2e-3
        slerp = exp(share * turn) @ start.rotation
        assert np.linalg.norm(log(pose.rotation @ slerp.T)) < 0.02


@pytest.mark.parametrize(
    ("present", "command", "sent"),
    [(1.0, 0.95, 1.0), (1.0, 0.0, 0.0), (0.0, 0.08, 0.0), (0.4, 0.6, 0.6)],
)
def test_the_gripper_keeps_its_command_until_another_clearly_differs(present, command, sent):
    assert held(present, command) == sent
