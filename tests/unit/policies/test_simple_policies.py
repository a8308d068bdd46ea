import numpy as np
import pytest

from policies.hold import HoldPolicy
from policies.random import RandomPolicy
from policies.scripted_expert import ScriptedExpertPolicy
from vla.types import TABLETOP, Observation, Policy


def _observation(grip_width=0.08, at=1.5):
    state = np.array([0.4, 0, 0.2, 0, 0, 0, grip_width], np.float32)
    return Observation(images={}, state=state, instruction="wait", captured_at_s=at)


class CountingExpert:
    def reset(self, rng):
        self.first = float(rng.random())

    def act(self):
        return np.full(7, 0.01 * self.first, np.float32)


@pytest.mark.parametrize(
    "policy", [HoldPolicy(), RandomPolicy(), ScriptedExpertPolicy(CountingExpert())]
)
def test_every_policy_keeps_the_protocol_and_the_time_of_capture(policy):
    assert isinstance(policy, Policy)
    policy.reset(0)
    chunk = policy.act(_observation(at=2.5))
    assert chunk.actions.shape == (1, 7)
    assert chunk.actions.dtype == np.float32
    assert chunk.captured_at_s == 2.5
    TABLETOP.action_spec.check(chunk.actions)


def test_holding_changes_nothing_and_leaves_an_open_gripper_open():
    action = HoldPolicy().act(_observation(0.08)).actions[0]
    np.testing.assert_array_equal(action, [0, 0, 0, 0, 0, 0, 1])


def test_holding_never_drops_what_the_fingers_may_hold():
    assert HoldPolicy().act(_observation(0.04)).actions[0, 6] == 0


def test_random_actions_belong_to_their_seed():
    policy = RandomPolicy()
    draws = []
    for seed in (1, 1, 2):
        policy.reset(seed)
        draws.append(np.stack([policy.act(_observation()).actions[0] for _ in range(3)]))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_random_actions_fill_the_whole_range():
    policy, spec = RandomPolicy(seed=0), TABLETOP.action_spec
    actions = np.stack([policy.act(_observation()).actions[0] for _ in range(400)])
    span = np.asarray(spec.high) - np.asarray(spec.low)
    assert (actions.min(axis=0) < np.asarray(spec.low) + 0.05 * span).all()
    assert (actions.max(axis=0) > np.asarray(spec.high) - 0.05 * span).all()


def test_the_expert_is_reset_with_the_seed_of_the_episode():
    expert = CountingExpert()
    policy = ScriptedExpertPolicy(expert)
    policy.reset(5)
    assert expert.first == np.random.default_rng(5).random()
