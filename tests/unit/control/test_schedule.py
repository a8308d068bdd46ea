import numpy as np
import pytest

from vla.control.config import ControlConfig
from vla.control.loop import build_scheduler
from vla.control.rotation import Pose
from vla.control.schedule import Capture, NoAction, RecedingHorizon, ScheduledAction, TimedChunk


def chunk(base: int, captured_at_s: float, steps: int = 4, mark: float = 0.0) -> TimedChunk:
    """A chunk whose action i is filled with mark + i."""
    capture = Capture(base=base, captured_at_s=captured_at_s, tool=Pose(np.zeros(3), np.eye(3)))
    actions = np.repeat(mark + np.arange(steps, dtype=np.float32)[:, None], 7, axis=1)
    return TimedChunk(sequence=1, capture=capture, actions=actions)


def value(scheduled: ScheduledAction | NoAction) -> float:
    assert isinstance(scheduled, ScheduledAction)
    return float(scheduled.chunk.actions[scheduled.index, 0])


def test_without_a_chunk_there_is_no_action_and_the_policy_is_overdue_only_after_its_time():
    scheduler = RecedingHorizon(max_age_s=0.15)
    scheduler.reset(10.0)
    early, late = scheduler.next_action(10.1), scheduler.next_action(10.2)
    assert isinstance(early, NoAction)
    assert isinstance(late, NoAction)
    assert (early.is_overdue, late.is_overdue) == (False, True)
    assert "waited 200 ms for an action, limit 150 ms" in late.reason


def test_an_answer_in_no_time_is_carried_out_from_its_first_action():
    scheduler = RecedingHorizon(max_age_s=0.15)
    scheduler.offer(chunk(base=0, captured_at_s=0.0))
    assert value(scheduler.next_action(0.05)) == 0.0
    assert value(scheduler.next_action(0.15)) == 1.0
    assert scheduler.consumed == 2


def test_actions_that_began_since_the_capture_are_dropped_by_count_not_by_time():
    scheduler = RecedingHorizon(max_age_s=0.5)
    scheduler.offer(chunk(base=0, captured_at_s=0.0))
    scheduler.next_action(0.0)
    scheduler.next_action(0.1)
    scheduler.next_action(0.2)
    # Captured when action 1 began; actions 1 and 2 have begun since, whatever the clock says.
    scheduler.offer(chunk(base=1, captured_at_s=0.1, mark=100.0))
    assert value(scheduler.next_action(0.31)) == 102.0


def test_nothing_is_dropped_when_the_arm_waited_for_the_answer():
    scheduler = RecedingHorizon(max_age_s=0.5)
    scheduler.offer(chunk(base=0, captured_at_s=0.0, steps=1))
    scheduler.next_action(0.0)
    assert isinstance(scheduler.next_action(0.1), NoAction)
    scheduler.offer(chunk(base=1, captured_at_s=0.1, mark=50.0))  # answered 300 ms later
    assert value(scheduler.next_action(0.4)) == 50.0


def test_an_action_whose_observation_is_too_old_does_not_begin():
    scheduler = RecedingHorizon(max_age_s=0.15)
    scheduler.offer(chunk(base=0, captured_at_s=0.0))
    assert value(scheduler.next_action(0.0)) == 0.0
    assert value(scheduler.next_action(0.1)) == 1.0
    late = scheduler.next_action(0.2)
    assert isinstance(late, NoAction)
    assert late.is_overdue
    assert late.reason == "the next action is based on an observation 200 ms old, limit 150 ms"
    assert scheduler.consumed == 2


def test_a_used_up_chunk_gives_the_policy_time_for_the_next():
    scheduler = RecedingHorizon(max_age_s=0.15)
    scheduler.offer(chunk(base=0, captured_at_s=0.0, steps=1))
    scheduler.next_action(0.1)
    used_up = scheduler.next_action(0.2)
    assert isinstance(used_up, NoAction)
    assert not used_up.is_overdue
    much_later = scheduler.next_action(0.4)
    assert isinstance(much_later, NoAction)
    assert much_later.is_overdue


def test_an_older_answer_never_replaces_a_newer_one():
    scheduler = RecedingHorizon(max_age_s=1.0)
    scheduler.offer(chunk(base=0, captured_at_s=0.0))
    scheduler.next_action(0.0)
    scheduler.offer(chunk(base=1, captured_at_s=0.1, mark=100.0))
    scheduler.offer(chunk(base=0, captured_at_s=0.0, mark=200.0))
    assert value(scheduler.next_action(0.1)) == 100.0


def test_no_more_actions_of_a_chunk_are_used_than_asked_for():
    scheduler = RecedingHorizon(max_age_s=1.0, execute_steps=2)
    scheduler.offer(chunk(base=0, captured_at_s=0.0))
    first = scheduler.next_action(0.0)
    second = scheduler.next_action(0.1)
    assert isinstance(first, ScheduledAction)
    assert isinstance(second, ScheduledAction)
    assert first.following == pytest.approx(np.ones(7))
    assert second.following is None
    assert isinstance(scheduler.next_action(0.2), NoAction)


def test_a_new_episode_forgets_the_chunks_of_the_last():
    scheduler = RecedingHorizon(max_age_s=0.15)
    scheduler.offer(chunk(base=0, captured_at_s=0.0))
    scheduler.next_action(0.0)
    scheduler.reset(0.05)
    assert scheduler.consumed == 0
    assert isinstance(scheduler.next_action(0.05), NoAction)


def test_the_configured_scheduler_takes_its_age_limit_from_the_settings():
    scheduler = build_scheduler(ControlConfig(max_action_age_ms=300.0))
    scheduler.offer(chunk(base=0, captured_at_s=0.0))
    assert isinstance(scheduler.next_action(0.29), ScheduledAction)
    assert isinstance(scheduler.next_action(0.31), NoAction)
