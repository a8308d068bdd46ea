from dataclasses import replace

import mujoco
import numpy as np
import pytest

from envs.arms import HOME_JOINTS
from envs.scene import Scene
from vla.control.channel import Channel
from vla.control.limits import PANDA
from vla.errors import RobotError
from vla.robots.config import RobotConfig
from vla.robots.sim import TABLETOP_PANDA, SimRobot, physics_state, restore, scene_fields
from vla.types import Observation, Robot

PERIOD = 0.01


@pytest.fixture(scope="module")
def scene() -> Scene:
    scene = Scene()
    scene.clear()
    mujoco.mj_forward(scene.model, scene.data)
    return scene


def begin(robot: SimRobot, scene: Scene) -> None:
    channel = Channel(robot.scene_layout())
    channel.publish(**scene_fields(scene.model, scene.data))
    robot.begin(channel.read_new())


@pytest.fixture
def robot(scene) -> SimRobot:
    robot = SimRobot(TABLETOP_PANDA, PERIOD)
    begin(robot, scene)
    return robot


def drive(robot: SimRobot, targets: np.ndarray, gripper: float = 1.0) -> np.ndarray:
    """Commands one target per period and returns where the joints were at the end of each."""
    reached = []
    for target in targets:
        robot.command(np.append(target, gripper))
        robot.pass_time(1)
        reached.append(robot.read(0.0).joints)
    return np.array(reached)


def test_a_scene_arrives_as_it_was(scene, robot):
    state = robot.read(1.5)
    np.testing.assert_allclose(state.joints, HOME_JOINTS)
    assert (state.gripper, state.measured_at_s) == (pytest.approx(1.0), 1.5)
    assert not state.velocity.any()


def test_simulated_time_is_the_servo_grid(robot):
    for periods in (1, 1, 1, 2, 5):
        robot.command(np.append(HOME_JOINTS, 1.0))
        robot.pass_time(periods)
    assert robot._data.time == pytest.approx(0.1, abs=1e-9)


def test_a_smooth_motion_is_followed_without_trailing_behind(robot):
    time = PERIOD * np.arange(1, 101)
    targets = HOME_JOINTS + 0.1 * (1 - np.cos(2 * time))[:, None]
    reached = drive(robot, targets)
    assert np.abs(reached - targets).max() < 0.005


def test_a_command_that_is_not_followed_by_another_becomes_a_standing_set_point(robot):
    targets = HOME_JOINTS + 0.3 * PERIOD * np.arange(1, 31)[:, None]
    drive(robot, targets)
    robot.pass_time(100)
    np.testing.assert_allclose(robot.read(0.0).joints, targets[-1], atol=0.005)


def test_the_gripper_follows_its_opening(robot):
    drive(robot, np.tile(HOME_JOINTS, (100, 1)), gripper=0.5)
    assert robot.read(0.0).gripper == pytest.approx(0.5, abs=0.05)


def test_a_snapshot_restored_elsewhere_is_the_same_state(scene, robot):
    drive(robot, HOME_JOINTS + 0.001 * np.arange(20)[:, None])
    channel = Channel(robot.snapshot_layout())
    channel.publish(**robot.snapshot())
    elsewhere = mujoco.MjData(scene.model)
    restore(scene.model, elsewhere, channel.read_new())
    for name in ("time", "qpos", "qvel", "ctrl"):
        np.testing.assert_array_equal(getattr(elsewhere, name), getattr(robot._data, name))
    np.testing.assert_array_equal(elsewhere.qpos[:7], robot.read(0.0).joints)


def test_another_scene_of_the_same_kind_reuses_the_memory_of_the_last(scene, robot):
    kinematics, data = robot._kinematics, robot._data
    drive(robot, HOME_JOINTS + 0.01 * np.ones((5, 7)))
    begin(robot, scene)
    assert robot._kinematics is kinematics
    assert robot._data is data
    np.testing.assert_allclose(robot.read(0.0).joints, HOME_JOINTS)
    assert robot._data.time == 0.0


def test_two_runs_of_the_same_commands_are_the_same_bit_for_bit(scene):
    runs = []
    for _ in range(2):
        robot = SimRobot(TABLETOP_PANDA, PERIOD)
        begin(robot, scene)
        runs.append(drive(robot, HOME_JOINTS + 0.002 * np.arange(30)[:, None]))
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_model_without_the_arm_s_actuators_is_refused(scene):
    arm = replace(TABLETOP_PANDA, servos=("servo1", "motor9"))
    with pytest.raises(RobotError, match="the model has no actuator motor9"):
        SimRobot(arm, PERIOD).load(scene.model, physics_state(scene.model, scene.data))


def test_a_scene_that_does_not_fit_is_refused():
    bodies = "".join(
        f'<body><freejoint/><geom size="0.01" pos="{i} 0 0"/></body>' for i in range(400)
    )
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    with pytest.raises(RobotError, match="use fewer or simpler bodies"):
        scene_fields(model, mujoco.MjData(model))


def test_a_robot_sees_through_the_eyes_it_was_given(scene):
    seen = Observation(images={}, state=np.zeros(7, np.float32), instruction="look")
    assert SimRobot(TABLETOP_PANDA, PERIOD, see=lambda: seen).observe() is seen
    assert isinstance(SimRobot(TABLETOP_PANDA, PERIOD), Robot)
    with pytest.raises(RobotError, match="has no eyes of its own"):
        SimRobot(TABLETOP_PANDA, PERIOD).observe()


def test_the_default_settings_name_the_arm_that_the_tabletop_has():
    config = RobotConfig()
    assert config.arm == "panda"
    assert TABLETOP_PANDA.limits is PANDA
    assert config.workspace().high[0] == 0.74
