import numpy as np
import pytest

from vla.control.plan import blended, continued
from vla.types import END_EFFECTOR_DELTA_7D as SPEC


def rows(dx, gripper=1.0) -> np.ndarray:
    """Actions along x."""
    actions = np.zeros((len(dx), 7), np.float32)
    actions[:, 0], actions[:, 6] = dx, gripper
    return actions


def go_on(chunk, begun, last=None, has_pause=False):
    return continued(chunk, begun, last, SPEC, has_pause)


def test_a_chunk_that_nothing_preceded_is_carried_out_as_it_is():
    chunk = rows([0.01, 0.02, 0.03])
    np.testing.assert_array_equal(go_on(chunk, rows([])), chunk)


def test_a_correction_among_the_past_actions_is_caught_up_on():
    # The policy saw the arm 1 cm off and begins with that centimetre, but two other actions were carried out meanwhile.
    chunk = rows([-0.01, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(go_on(chunk, rows([0.0, 0.0]))[:, 0], [0, 0, -0.01, 0], atol=1e-8)


def test_all_actions_together_lead_to_the_goal_of_the_chunk_whatever_was_carried_out():
    rng = np.random.default_rng(0)
    chunk = rng.uniform(-0.01, 0.01, (8, 7)).astype(np.float32)
    begun = rng.uniform(-0.01, 0.01, (3, 7)).astype(np.float32)
    plan = go_on(chunk, begun)
    np.testing.assert_array_equal(plan[:3], begun)
    goals, wanted = np.cumsum(plan[:, :6], axis=0), np.cumsum(chunk[:, :6], axis=0)
    np.testing.assert_allclose(goals[3:], wanted[3:], atol=1e-6)
    np.testing.assert_array_equal(plan[3:, 6], chunk[3:, 6])


def test_what_exceeds_the_limit_of_an_action_goes_into_the_next():
    chunk = rows([-0.04, -0.03, 0.0, 0.0, 0.01])
    plan = go_on(chunk, rows([0.02]))
    np.testing.assert_allclose(plan[:, 0], [0.02, -0.04, -0.04, -0.01, 0.01], atol=1e-7)


def test_a_chunk_that_is_past_is_left_alone():
    chunk = rows([0.01])
    np.testing.assert_array_equal(go_on(chunk, rows([0.02, 0.02])), chunk)


def test_the_arm_stands_for_one_action_when_the_gripper_turns():
    chunk = rows([0.01, 0.02, 0.03], gripper=[1, 0, 0])
    plan = go_on(chunk, rows([]), last=rows([0.0])[0], has_pause=True)
    np.testing.assert_allclose(plan[:, 0], [0.01, 0.0, 0.02, 0.03])
    np.testing.assert_array_equal(plan[:, 6], [1, 0, 0, 0])


def test_a_gripper_that_should_have_turned_already_turns_before_anything_else():
    # "Close, then lift" for an arm that stood still with an open gripper while the policy thought.
    chunk = rows([0.0, 0.0, 0.04, 0.04], gripper=0.0)
    plan = go_on(chunk, rows([0.0, 0.0]), last=rows([0.0])[0], has_pause=True)
    np.testing.assert_allclose(plan[2:, 0], [0.0, 0.04, 0.04])
    np.testing.assert_array_equal(plan[2:, 6], [0, 0, 0])


def test_nothing_pauses_before_the_first_action_of_an_episode_or_when_it_is_turned_off():
    chunk = rows([0.01, 0.02], gripper=[0, 0])
    assert len(go_on(chunk, rows([]), last=None, has_pause=True)) == 2
    assert len(go_on(chunk, rows([]), last=rows([0.0])[0], has_pause=False)) == 2


def test_a_policy_of_single_actions_sees_for_itself_whether_the_gripper_has_turned():
    chunk = rows([0.01], gripper=[0])
    assert len(go_on(chunk, rows([]), last=rows([0.0])[0], has_pause=True)) == 1


@pytest.mark.parametrize(("weight", "expected"), [(1.0, [0.0, 0.03, 0.01]), (0.0, [0.02] * 3)])
def test_a_blend_follows_the_heavier_way_and_ends_on_the_new_one(weight, expected):
    old, new = rows([0.0, 0.03]), rows([0.02, 0.02, 0.02])
    plan = blended(old, new, np.full(2, weight), SPEC)
    np.testing.assert_allclose(plan[:, 0], [*expected[:2], 0.06 - sum(expected[:2])], atol=1e-7)


def test_a_blend_averages_goals_and_takes_the_gripper_of_the_heavier():
    old, new = rows([0.0, 0.0], gripper=1.0), rows([0.02, 0.02], gripper=0.0)
    plan = blended(old, new, np.array([0.75, 0.25]), SPEC)
    np.testing.assert_allclose(np.cumsum(plan[:, 0]), [0.005, 0.03], atol=1e-7)
    np.testing.assert_array_equal(plan[:, 6], [1, 0])


def test_there_is_nothing_to_blend_with_a_chunk_that_is_used_up():
    new = rows([0.01])
    np.testing.assert_array_equal(blended(rows([]), new, np.ones(0), SPEC), new)
