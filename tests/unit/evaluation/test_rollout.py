import numpy as np
import pytest
from fakes import FakeEnv, FakePolicy

from vla.errors import ConfigError, PolicyError
from vla.evaluation.rollout import InstructionSplit, RolloutConfig, run_episode, run_together
from vla.types import ActionChunk


def test_a_policy_that_goes_to_the_goal_succeeds():
    episode = run_episode(FakeEnv(), FakePolicy(), RolloutConfig(), 3)
    assert episode.is_success
    assert episode.failure == ""
    assert (episode.task, episode.target) == ("fake", "middle")
    assert episode.instruction == "go to the middle"


def test_a_policy_that_stays_away_times_out():
    episode = run_episode(FakeEnv(), FakePolicy(gain=0.0), RolloutConfig(), 3)
    assert not episode.is_success
    assert episode.failure == "timeout"
    assert episode.steps == FakeEnv.max_steps


def test_an_exception_is_reported_with_its_traceback_and_not_scored():
    class Broken(FakePolicy):
        def act(self, observation):
            if self.seen:
                raise RuntimeError("the network fell over")
            return super().act(observation)

    episode = run_episode(FakeEnv(), Broken(gain=0.0), RolloutConfig(), 3)
    assert episode.failure == "exception"
    assert not episode.is_scored
    assert episode.steps == 1
    assert episode.error == "RuntimeError: the network fell over"
    assert "in act" in episode.traceback


def test_a_policy_that_does_not_fit_stops_the_evaluation_at_its_first_observation():
    class Misfit(FakePolicy):
        def act(self, observation):
            raise PolicyError("no camera 'side'")

    with pytest.raises(PolicyError, match="side"):
        run_episode(FakeEnv(), Misfit(), RolloutConfig(), 3)


def test_actions_of_another_width_are_a_misfit():
    class Wide(FakePolicy):
        def act(self, observation):
            return ActionChunk(actions=np.zeros((1, 8), np.float32))

    with pytest.raises(PolicyError, match=r"\(1, 8\); expected \(steps, 7\)"):
        run_episode(FakeEnv(), Wide(), RolloutConfig(), 3)


def test_an_action_that_is_not_finite_is_a_safety_stop_and_never_reaches_the_environment():
    env = FakeEnv()
    episode = run_episode(env, FakePolicy(gain=float("nan")), RolloutConfig(), 3)
    assert episode.failure == "safety_stop"
    assert episode.is_scored
    assert "dx is not finite" in episode.error
    assert env.received == []


def test_actions_beyond_the_limits_are_clipped_and_counted():
    env = FakeEnv()
    episode = run_episode(env, FakePolicy(gain=10.0), RolloutConfig(), 3)
    assert episode.clipped_steps > 0
    assert max(abs(action[0]) for action in env.received) <= 0.04 + 1e-7


def test_only_the_first_steps_of_a_chunk_are_executed():
    policy = FakePolicy(gain=0.0, chunk_length=4)
    run_episode(FakeEnv(), policy, RolloutConfig(), 3, execute_steps=2)
    assert len(policy.seen) == FakeEnv.max_steps / 2
    np.testing.assert_allclose([o.captured_at_s for o in policy.seen], [0.0, 0.2, 0.4, 0.6])


def test_without_a_number_the_whole_chunk_is_executed():
    policy = FakePolicy(gain=0.0, chunk_length=4)
    run_episode(FakeEnv(), policy, RolloutConfig(), 3)
    assert len(policy.seen) == FakeEnv.max_steps / 4


def test_a_blind_policy_sees_black_pictures_of_the_same_shape():
    policy = FakePolicy()
    run_episode(FakeEnv(), policy, RolloutConfig(black_image=True), 3)
    assert {name: image.max() for name, image in policy.seen[0].images.items()} == {
        "front": 0,
        "wrist": 0,
    }
    assert policy.seen[0].images["front"].shape == (16, 16, 3)


def test_latency_makes_the_environment_rest_before_the_first_action():
    env = FakeEnv()
    run_episode(env, FakePolicy(), RolloutConfig(latency_ms=200), 3)
    np.testing.assert_array_equal(np.stack(env.received[:2])[:, :6], 0)
    assert env.received[2][0] != 0


def test_swapped_instructions_and_wordings_are_asked_of_the_environment():
    env = FakeEnv()
    config = RolloutConfig(swap_instruction=True, instruction_split=InstructionSplit.HELD_OUT)
    run_episode(env, FakePolicy(), config, 3)
    assert env.options == {"swap_instruction": True, "instruction_split": "held_out"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1; got 0"),
        ({"seed": -1}, "seed must be 0 or more; got -1"),
        ({"latency_ms": -5.0}, "latency_ms must lie in"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RolloutConfig(**settings)


def _together(policy, seeds, envs=None):
    envs = envs or [FakeEnv() for _ in seeds]
    return run_together(
        envs, policy, RolloutConfig(), seeds, execute_steps=2, on_frames=[None] * len(seeds)
    )


def test_episodes_side_by_side_end_as_they_do_one_after_another():
    alone = [
        run_episode(FakeEnv(), FakePolicy(chunk_length=3), RolloutConfig(), seed, execute_steps=2)
        for seed in range(5)
    ]
    assert _together(FakePolicy(chunk_length=3), range(5)) == alone
    assert len({episode.steps for episode in alone}) > 1


def test_a_crashing_environment_ends_its_own_episode_and_no_other():
    class Crashing(FakeEnv):
        def step(self, action):
            raise RuntimeError("the simulation exploded")

    episodes = _together(FakePolicy(), range(2), [Crashing(), FakeEnv()])
    assert [episode.failure for episode in episodes] == ["exception", ""]


def test_a_policy_without_batches_cannot_run_episodes_side_by_side():
    from policies.hold import HoldPolicy

    with pytest.raises(ConfigError, match="HoldPolicy answers one observation at a time"):
        _together(HoldPolicy(), range(2))
