import numpy as np
import pytest

from envs.arms import HOME_ROTATION, JOINT_HIGH, JOINT_LOW
from envs.base import TabletopEnv
from envs.config import EnvConfig
from envs.controller import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from envs.rotations import to_rpy
from vla.errors import ActionError


@pytest.fixture
def env():
    env = TabletopEnv(EnvConfig(task="reach", cameras=[], randomization="none"))
    env.reset(seed=0)
    yield env
    env.close()


def act(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_the_tool_moves_by_the_delta_along_the_base_axes(env):
    before = env.observe()["state"]
    env.step(act(0.03, -0.02, 0.01, 0, 0, 0, 1))
    env.step(act(0, 0, 0, 0, 0, 0, 1))
    moved = env.observe()["state"] - before
    np.testing.assert_allclose(moved[:3], [0.03, -0.02, 0.01], atol=1e-3)
    np.testing.assert_allclose(moved[3:6], 0.0, atol=5e-3)


def test_each_rotation_turns_the_tool_about_its_base_axis(env):
    for axis in range(3):
        before = env.scene.tool_rotation
        action = act(0, 0, 0, 0, 0, 0, 1)
        action[3 + axis] = 0.1
        env.step(action)
        env.step(act(0, 0, 0, 0, 0, 0, 1))
        turned = to_rpy(env.scene.tool_rotation @ before.T)
        np.testing.assert_allclose(turned, 0.1 * np.eye(3)[axis], atol=6e-3)


def test_an_action_beyond_its_limits_is_clipped(env):
    before = env.observe()["state"]
    env.step(act(1.0, 0, 0, 0, 0, 0, 5))
    env.step(act(0, 0, 0, 0, 0, 0, 1))
    assert env.observe()["state"][0] - before[0] == pytest.approx(0.04, abs=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused_by_name(env, bad):
    with pytest.raises(ActionError, match="dy is not finite"):
        env.step(act(0, bad, 0, 0, 0, 0, 1))


def test_an_action_of_another_width_is_refused(env):
    with pytest.raises(ActionError, match="7 numbers"):
        env.step(np.zeros(6, np.float32))


def test_the_gripper_command_is_absolute_and_proportional(env):
    for opening, width in ((0.0, 0.0), (0.5, 0.04), (1.0, 0.08)):
        for _ in range(8):
            env.step(act(0, 0, 0, 0, 0, 0, opening))
        assert env.scene.grip_width_m == pytest.approx(width, abs=2e-3)


def test_the_tool_stays_in_the_workspace(env):
    for corner in ((0.04, 0.04, -0.04), (-0.04, -0.04, 0.04)):
        for _ in range(25):
            env.step(act(*corner, 0, 0, 0, 1))
        assert (env.scene.tool_position > WORKSPACE_LOW_M - 0.02).all()
        assert (env.scene.tool_position < WORKSPACE_HIGH_M + 0.02).all()


def test_a_target_that_ran_into_a_wall_does_not_wind_up(env):
    for _ in range(20):
        env.step(act(0, 0, -0.04, 0, 0, 0, 1))
    lowest = env.scene.tool_position[2]
    env.step(act(0, 0, 0.04, 0, 0, 0, 1))
    env.step(act(0, 0, 0, 0, 0, 0, 1))
    assert env.scene.tool_position[2] == pytest.approx(lowest + 0.04, abs=4e-3)


def test_no_sequence_of_actions_drives_a_joint_past_its_limit(env):
    rng = np.random.default_rng(1)
    low, high = env.action_space.low, env.action_space.high
    for _ in range(12):
        action = np.where(rng.random(7) < 0.5, low, high)
        for _ in range(10):
            env.step(action.astype(np.float32))
            assert (env.scene.joints > JOINT_LOW - 0.01).all()
            assert (env.scene.joints < JOINT_HIGH + 0.01).all()
            tilt = to_rpy(env.scene.tool_rotation @ HOME_ROTATION.T)
            assert np.abs(tilt[:2]).max() < 1.0
