import numpy as np
import pytest

from vla.control.realtime_chunking import LatencyTracker, RealTimeChunking, soft_mask
from vla.control.rotation import Pose
from vla.control.schedule import Capture, SchedulerSettings, TimedChunk

DT = 0.1


def chunk(base: int, dx, captured_at_s: float = 0.0) -> TimedChunk:
    actions = np.zeros((len(dx), 7), np.float32)
    actions[:, 0], actions[:, 6] = dx, 1.0
    capture = Capture(base=base, captured_at_s=captured_at_s, tool=Pose(np.zeros(3), np.eye(3)))
    return TimedChunk(sequence=base, capture=capture, actions=actions)


@pytest.fixture
def scheduler() -> RealTimeChunking:
    """Has begun two actions of eight that took 0.2 s to answer, so two more are promised from now on."""
    scheduler = RealTimeChunking(SchedulerSettings(gripper_pause=False))
    scheduler.reset(0.0)
    scheduler.offer(chunk(0, [0.01] * 8, captured_at_s=0.0), 0.2)
    for i in range(2):
        scheduler.next_action(0.2 + DT * i)
    return scheduler


def ahead(scheduler: RealTimeChunking, count: int) -> list[float]:
    return [round(float(scheduler.next_action(0.0).action[0]), 5) for _ in range(count)]


def test_what_begins_before_the_answer_is_promised_to_the_policy(scheduler):
    np.testing.assert_allclose(scheduler.committed(2)[:, 0], [0.01, 0.01])
    assert len(scheduler.committed(1)) == 2  # action 1 is under way: that one and the next


def test_a_promise_is_never_padded_beyond_what_is_known(scheduler):
    ahead(scheduler, 6)
    assert scheduler.committed(8).shape == (0, 7)


def test_after_an_answer_that_comes_early_the_rest_of_the_promise_is_kept(scheduler):
    scheduler.committed(2)
    ahead(scheduler, 1)
    scheduler.offer(
        chunk(2, [0.04] * 8, captured_at_s=0.4), 0.5
    )  # one action has begun, two were promised
    first, *later = ahead(scheduler, 7)
    assert first == 0.01
    assert later[0] > 0.01


def test_only_what_was_consumed_is_dropped_even_when_more_was_foreseen(scheduler):
    scheduler.committed(2)
    scheduler.offer(
        chunk(2, [0.01, 0.01, 0.02, 0.03], captured_at_s=0.4), 0.4
    )  # answered in no time
    action = scheduler.next_action(0.4)
    assert action.index == 0


def test_after_a_late_answer_more_is_past_than_was_foreseen(scheduler):
    scheduler.committed(2)
    ahead(scheduler, 3)
    scheduler.offer(chunk(2, [0.01] * 8, captured_at_s=0.4), 0.7)
    assert scheduler.next_action(0.7).index == 3


def test_a_chunk_that_continues_the_promise_is_carried_out_as_it_is(scheduler):
    scheduler.committed(2)
    ahead(scheduler, 2)
    scheduler.offer(chunk(2, [0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.02, 0.03], 0.4), 0.6)
    assert ahead(scheduler, 6) == [0.01] * 4 + [0.02, 0.03]


def test_the_new_chunk_takes_over_smoothly_and_ends_at_its_own_goal(scheduler):
    scheduler.committed(2)
    ahead(scheduler, 2)
    new = [0.01, 0.01, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02]
    scheduler.offer(chunk(2, new, 0.4), 0.6)
    actions = ahead(scheduler, 6)
    assert actions[0] < 0.02 - 1e-3  # a hard switch would begin with 0.02
    assert sum(actions) == pytest.approx(0.12, abs=1e-5)


def test_the_foreseen_latency_forgets_the_warm_up():
    tracker = LatencyTracker(remembered=3)
    assert tracker.steps(DT) == 0
    tracker.add(2.0)
    assert tracker.steps(DT) == 20
    for _ in range(3):
        tracker.add(0.14)
    assert tracker.steps(DT) == 2


@pytest.mark.parametrize(("latency_s", "steps"), [(0.0, 0), (0.1, 1), (0.2, 2), (0.201, 3)])
def test_a_started_period_counts_as_one(latency_s, steps):
    tracker = LatencyTracker()
    tracker.add(latency_s)
    assert tracker.steps(DT) == steps


def test_the_soft_mask_is_the_papers():
    mask = soft_mask(2, 5)
    left = np.array([3, 2, 1]) / 4
    np.testing.assert_allclose(mask[:2], 1.0)
    np.testing.assert_allclose(mask[2:], left * (np.exp(left) - 1) / (np.e - 1))
    assert soft_mask(0, 0).shape == (0,)
    np.testing.assert_array_equal(soft_mask(3, 3), [1, 1, 1])
    np.testing.assert_array_equal(soft_mask(5, 3), [1, 1, 1])
