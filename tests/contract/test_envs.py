"""What others may rely on: Gymnasium's own checker, vectorisation, and experts good enough to learn from."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.config import EnvConfig
from envs.experts import EXPERTS, make_expert


@pytest.mark.parametrize("name", sorted(envs.ENVIRONMENT_IDS))
def test_gymnasiums_checker_passes(name):
    env = gymnasium.make(name, image_size=32)
    check_env(env.unwrapped)
    env.close()


def test_gymnasium_make_takes_the_fields_of_the_config():
    env = gymnasium.make("vla/Push-v0", image_size=48, cameras=["wrist"], randomization="hard")
    observation, info = env.reset(seed=0)
    assert observation["images"]["wrist"].shape == (48, 48, 3)
    assert info["task"] == "push"
    assert env.render().shape == (256, 256, 3)
    env.close()


def test_parallel_environments_show_what_single_ones_show():
    config = EnvConfig(task="stack", image_size=32)
    single = envs.make(config)
    vector = envs.make_vector(config, num_envs=2)
    try:
        together, info = vector.reset(seed=[3, 4])
        action = np.tile(np.array([0.02, 0.01, -0.01, 0, 0, 0, 1], np.float32), (2, 1))
        for _ in range(2):
            together, *_ = vector.step(action)
        for number, seed in enumerate((3, 4)):
            single.reset(seed=seed)
            for _ in range(2):
                alone, *_ = single.step(action[number])
            np.testing.assert_array_equal(
                together["images"]["front"][number], alone["images"]["front"]
            )
            np.testing.assert_allclose(together["state"][number], alone["state"], atol=1e-6)
            assert together["instruction"][number] == alone["instruction"]
            assert info["instruction"][number] == alone["instruction"]
    finally:
        vector.close()
        single.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(EXPERTS))
def test_the_expert_solves_at_least_95_percent_of_200_seeds(task):
    env = envs.make(EnvConfig(task=task, cameras=[]))
    expert, solved = make_expert(env), 0
    for seed in range(200):
        env.reset(seed=seed)
        is_over = False
        while not is_over:
            *_, terminated, truncated, info = env.step(expert.act())
            is_over = terminated or truncated
        solved += info["is_success"]
    assert solved >= 190
