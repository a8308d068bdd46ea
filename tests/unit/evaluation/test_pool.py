import dataclasses
import functools

import pytest
from fakes import FakeEnv, crash_process, make_noisy_policy, refuse_checkpoint

from vla.errors import CheckpointError, VlaError
from vla.evaluation import pool
from vla.evaluation.rollout import RolloutConfig


def _job(make=make_noisy_policy, **settings):
    return pool.Job(make_env=FakeEnv, make_policy=make, config=RolloutConfig(**settings))


def test_outcomes_do_not_depend_on_the_number_of_processes():
    job = _job(episodes=9)
    here = pool.evaluate(job, num_workers=0)
    assert [episode.seed for episode in here] == list(range(1_000_000, 1_000_009))
    assert (
        len({episode.is_success for episode in here}) == 2
    )  # the task is neither trivial nor hopeless
    assert pool.evaluate(job, num_workers=1) == here
    assert pool.evaluate(job, num_workers=2) == here


def test_neither_do_they_when_a_process_runs_several_episodes_side_by_side():
    job = dataclasses.replace(_job(episodes=5), batch_size=2)
    here = pool.evaluate(job, num_workers=0)
    assert [episode.seed for episode in here] == list(range(1_000_000, 1_000_005))
    assert pool.evaluate(job, num_workers=2) == here


def test_every_outcome_is_told_as_it_comes():
    told = []
    episodes = pool.evaluate(_job(episodes=4), num_workers=0, on_episode=told.append)
    assert told == episodes


def test_an_error_in_building_the_policy_reaches_the_caller_as_it_is():
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        pool.evaluate(_job(refuse_checkpoint, episodes=2), num_workers=1)


def test_a_worker_process_that_dies_is_one_line_and_not_a_hang():
    with pytest.raises(VlaError, match="rollout processes died"):
        pool.evaluate(_job(crash_process, episodes=2), num_workers=1)


def test_frames_of_the_first_episodes_are_kept(tmp_path):
    job = pool.Job(
        make_env=FakeEnv,
        make_policy=functools.partial(make_noisy_policy, gain=1.0),
        config=RolloutConfig(episodes=3),
        frames_directory=tmp_path / "frames",
        num_recorded=2,
    )
    pool.evaluate(job, num_workers=0)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["1000000.npy", "1000001.npy"]


def test_environments_are_closed_even_when_an_episode_breaks_the_evaluation():
    envs = []

    def make_env():
        envs.append(FakeEnv())
        return envs[-1]

    def stop(episode):
        raise KeyboardInterrupt

    job = pool.Job(
        make_env=make_env, make_policy=make_noisy_policy, config=RolloutConfig(episodes=3)
    )
    with pytest.raises(KeyboardInterrupt):
        pool.evaluate(job, num_workers=0, on_episode=stop)
    assert envs[0].is_closed
