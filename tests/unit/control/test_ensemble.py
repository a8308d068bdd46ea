import numpy as np
import pytest

from vla.control.ensemble import TemporalEnsemble, act_weights
from vla.control.rotation import Pose
from vla.control.schedule import Capture, SchedulerSettings, TimedChunk


def chunk(base: int, dx, gripper=1.0) -> TimedChunk:
    actions = np.zeros((len(dx), 7), np.float32)
    actions[:, 0], actions[:, 6] = dx, gripper
    capture = Capture(base=base, captured_at_s=0.0, tool=Pose(np.zeros(3), np.eye(3)))
    return TimedChunk(sequence=base, capture=capture, actions=actions)


def make(decay: float) -> TemporalEnsemble:
    ensemble = TemporalEnsemble(SchedulerSettings(ensemble_decay=decay, gripper_pause=False))
    ensemble.reset(0.0)
    return ensemble


def test_the_oldest_prediction_weighs_most_and_weights_add_up_to_one():
    weights = act_weights(3, 0.5)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[1:] / weights[:-1], np.exp(-0.5))


@pytest.mark.parametrize("decay", [0.0, 0.01, 1.0])
def test_positions_are_the_weighted_average_of_all_that_foresaw_them(decay):
    """Against the definition, written out: absolute goals of every chunk, averaged per action."""
    rng = np.random.default_rng(0)
    deltas = rng.uniform(-0.004, 0.004, (6, 4))
    ensemble, position, goals = make(decay), 0.0, {}
    for step in range(6):
        ensemble.offer(chunk(step, deltas[step]), 0.0)
        for i, goal in enumerate(position + np.cumsum(deltas[step].astype(np.float32))):
            goals.setdefault(step + i, []).append(goal)
        weights = np.exp(-decay * np.arange(len(goals[step])))
        expected = weights @ goals[step] / weights.sum()
        position += float(ensemble.next_action(0.0).action[0])
        assert position == pytest.approx(expected, abs=1e-6)


def test_a_single_prediction_is_taken_as_it_is():
    ensemble = make(0.1)
    ensemble.offer(chunk(0, [0.01, 0.02]), 0.0)
    np.testing.assert_allclose(ensemble.next_action(0.0).action[0], 0.01)


def test_of_the_gripper_the_weighted_majority_counts_and_never_a_mean():
    ensemble = make(0.0)
    for gripper in (1.0, 0.0, 0.0):
        ensemble.offer(chunk(0, [0.0], gripper), 0.0)
    assert ensemble.next_action(0.0).action[6] == 0.0


def test_a_late_chunk_takes_part_from_the_action_that_is_due():
    ensemble = make(0.0)
    ensemble.offer(chunk(0, [0.01] * 4), 0.0)
    ensemble.next_action(0.0)
    ensemble.next_action(0.1)
    ensemble.offer(
        chunk(1, [0.03] * 4), 0.2
    )  # wants to be at 1 + 6 cm after action 2, the first at 3 cm
    assert ensemble.next_action(0.2).action[0] == pytest.approx((0.07 + 0.03) / 2 - 0.02, abs=1e-7)
