import numpy as np

from vla.evaluation.latency import DelayLine
from vla.types import END_EFFECTOR_DELTA_7D as SPEC

REST = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


def _action(dx: float, gripper: float) -> np.ndarray:
    return np.array([dx, 0, 0, 0, 0, 0, gripper], np.float32)


def _through(latency_ms: float, actions: list[np.ndarray]) -> np.ndarray:
    line = DelayLine(SPEC, latency_ms)
    line.reset(REST)
    return np.stack([line.push(action) for action in actions])


def test_without_latency_actions_come_out_as_they_went_in():
    actions = [_action(0.01 * i, i % 2) for i in range(5)]
    np.testing.assert_array_equal(_through(0, actions), np.stack(actions))


def test_a_whole_number_of_steps_shifts_the_actions_and_rests_until_the_first():
    actions = [_action(0.01, 0), _action(0.02, 0), _action(0.03, 0)]
    out = _through(200, actions)  # two steps at 10 Hz
    np.testing.assert_array_equal(out[:2], np.stack([REST, REST]))
    np.testing.assert_array_equal(out[2], actions[0])


def test_a_fraction_of_a_step_blends_motion_by_the_time_each_action_is_in_force():
    out = _through(125, [_action(0.04, 0), _action(0.02, 0), _action(0.0, 0)])
    np.testing.assert_allclose(out[:, 0], [0.0, 0.75 * 0.04, 0.75 * 0.02 + 0.25 * 0.04], atol=1e-7)


def test_the_gripper_is_never_half_open_between_two_actions():
    short = _through(40, [_action(0, 0), _action(0, 0)])
    long = _through(60, [_action(0, 0), _action(0, 0)])
    np.testing.assert_array_equal(short[:, 6], [0, 0])
    np.testing.assert_array_equal(long[:, 6], [1, 0])


def test_the_sum_of_motion_is_only_delayed_and_never_lost():
    actions = [_action(0.01 * (i % 3), 1) for i in range(30)] + [_action(0, 1)] * 5
    np.testing.assert_allclose(
        _through(330, actions)[:, 0].sum(), sum(a[0] for a in actions), rtol=1e-5
    )


def test_reset_forgets_the_actions_of_the_last_episode():
    line = DelayLine(SPEC, 100)
    line.reset(REST)
    line.push(_action(0.04, 0))
    line.reset(REST)
    np.testing.assert_array_equal(line.push(_action(0.02, 0)), REST)
