import gymnasium
import numpy as np
import pytest

from envs.base import TabletopEnv
from envs.config import EnvConfig
from envs.experts import EXPERTS, EnvNoise, Perturbation, make_expert
from vla.errors import ConfigError
from vla.types import END_EFFECTOR_DELTA_7D


def make(task: str) -> TabletopEnv:
    return TabletopEnv(EnvConfig(task=task, cameras=[]))


def episode(env: TabletopEnv, seed: int, perturbation: Perturbation | None = None) -> dict:
    expert, rng = make_expert(env), np.random.default_rng(seed)
    env.reset(seed=seed)
    while True:
        action = expert.act()
        if perturbation:
            action = perturbation.perturb(action, rng)
        *_, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return info


@pytest.mark.parametrize("task", sorted(EXPERTS))
def test_the_expert_solves_its_task_with_actions_inside_the_limits(task):
    env = make(task)
    expert = make_expert(env)
    for seed in range(4):
        env.reset(seed=seed)
        terminated = False
        while not terminated:
            action = END_EFFECTOR_DELTA_7D.check(expert.act())
            assert action.dtype == np.float32
            *_, terminated, truncated, info = env.step(action)
            assert not truncated, (task, seed)
        assert info["is_success"], (task, seed)


@pytest.mark.parametrize("task", sorted(EXPERTS))
def test_the_expert_depends_on_the_present_state_alone(task):
    """A fresh expert, put into the middle of an episode, says the same as the one that led there."""
    env = make(task)
    env.reset(seed=5)
    expert = make_expert(env)
    for _ in range(8):
        action = expert.act()
        np.testing.assert_array_equal(action, make_expert(env).act())
        np.testing.assert_array_equal(action, expert.act())
        env.step(action)


def test_the_expert_picks_up_again_what_was_knocked_out_of_its_hand():
    env = make("pick_cube")
    expert = make_expert(env)
    for seed in range(3):
        env.reset(seed=seed)
        while env.scene.object_height(env.goal.target) < 0.03:
            env.step(expert.act())
        for _ in range(3):
            env.step(np.array([0.02, 0.02, 0, 0, 0, 0, 1], np.float32))
        assert not env.scene.is_held(env.goal.target)
        terminated = False
        while not terminated:
            *_, terminated, truncated, info = env.step(expert.act())
            assert not truncated
        assert info["is_success"]


@pytest.mark.parametrize("task", ["pick_cube", "place_in_bowl", "open_drawer"])
def test_the_expert_mostly_succeeds_although_it_is_led_astray(task):
    env = make(task)
    solved = []
    for seed in range(8):
        solved.append(episode(env, seed, Perturbation())["is_success"])
    assert sum(solved) >= 7


def test_the_elongated_block_makes_the_wrist_turn():
    env = make("place_in_bowl")
    expert, turns = make_expert(env), []
    for seed in range(30):
        env.reset(seed=seed)
        if env.goal.target == 0:
            start = env.observe()["state"][5]
            while not env.scene.is_held(0):
                env.step(expert.act())
            turns.append(abs(env.observe()["state"][5] - start))
    assert np.mean(turns) > 0.3
    assert max(turns) > 1.0


def test_the_same_generator_gives_the_same_perturbation():
    action = np.array([0.01, 0, 0, 0, 0, 0, 1], np.float32)
    runs = []
    for _ in range(2):
        perturbation, rng = Perturbation(), np.random.default_rng(3)
        runs.append(np.array([perturbation.perturb(action, rng) for _ in range(60)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0][:, :6] - action[:6]).max() > 0.02  # at least one push
    assert set(np.unique(runs[0][:, 6])) <= {0.0, 1.0}
    END_EFFECTOR_DELTA_7D.check(runs[0])


def test_without_noise_the_executed_action_is_the_experts():
    quiet = EnvNoise(step_std_m=0.0, step_std_rad=0.0, push_probability=0.0)
    action = np.array([0.01, -0.02, 0.03, 0.1, 0, 0, 0], np.float32)
    executed = Perturbation(quiet).perturb(action, np.random.default_rng(0))
    np.testing.assert_array_equal(executed, action)


def test_a_push_of_impossible_length_is_refused():
    with pytest.raises(ConfigError, match="push_min_steps is 3 and push_max_steps 2"):
        EnvNoise(push_min_steps=3, push_max_steps=2)


def test_experts_refuse_environments_of_another_kind():
    with pytest.raises(ConfigError, match="CartPoleEnv"):
        make_expert(gymnasium.make("CartPole-v1"))
