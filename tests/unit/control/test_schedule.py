"""Rules that all schedulers share, and those of the two receding horizons."""

import numpy as np
import pytest

from vla.control.config import ControlConfig
from vla.control.loop import build_scheduler
from vla.control.rotation import Pose
from vla.control.schedule import (
    Capture,
    NoAction,
    Record,
    Schedule,
    ScheduledAction,
    SchedulerSettings,
    TimedChunk,
)
from vla.control.schedulers import make_scheduler
from vla.errors import ConfigError
from vla.types import END_EFFECTOR_DELTA_7D as SPEC

EVERY = list(Schedule)
NOT_WAITING = [schedule for schedule in Schedule if schedule is not Schedule.SYNCHRONOUS]


def chunk(
    base: int, captured_at_s: float = 0.0, steps: int = 4, dx=0.01, gripper=1.0
) -> TimedChunk:
    """A chunk of `steps` actions along x, or of the given ones."""
    capture = Capture(base=base, captured_at_s=captured_at_s, tool=Pose(np.zeros(3), np.eye(3)))
    actions = np.zeros((steps, 7), dtype=np.float32)
    actions[:, 0], actions[:, 6] = dx, gripper
    return TimedChunk(sequence=1, capture=capture, actions=actions)


def make(schedule: Schedule, **settings):
    scheduler = make_scheduler(schedule, SchedulerSettings(**settings))
    scheduler.reset(0.0)
    return scheduler


def dx(scheduled: ScheduledAction | NoAction) -> float:
    assert isinstance(scheduled, ScheduledAction), scheduled
    return round(float(scheduled.action[0]), 6)


@pytest.mark.parametrize("schedule", EVERY)
def test_without_a_chunk_there_is_no_action_and_the_policy_is_overdue_only_after_its_time(schedule):
    scheduler = make(schedule, max_age_s=0.15)
    scheduler.reset(10.0)
    early, late = scheduler.next_action(10.1), scheduler.next_action(10.2)
    assert isinstance(early, NoAction)
    assert isinstance(late, NoAction)
    assert (early.is_overdue, late.is_overdue) == (False, True)
    assert "waited 200 ms for an action, limit 150 ms" in late.reason


@pytest.mark.parametrize("schedule", EVERY)
def test_an_answer_in_no_time_is_carried_out_from_its_first_action(schedule):
    scheduler = make(schedule)
    scheduler.offer(chunk(0, dx=[0.01, 0.02, 0.03, 0.04]), 0.0)
    assert [dx(scheduler.next_action(0.1 * i)) for i in range(4)] == [0.01, 0.02, 0.03, 0.04]
    assert scheduler.consumed == 4
    assert isinstance(scheduler.next_action(0.4), NoAction)


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_actions_that_began_since_the_capture_are_dropped_by_count_not_by_time(schedule):
    scheduler = make(schedule)
    scheduler.offer(chunk(0, dx=0.01), 0.0)
    for i in range(3):
        scheduler.next_action(0.1 * i)
    # Captured when action 1 began; actions 1 and 2 have begun since, however much later it is.
    scheduler.offer(chunk(1, captured_at_s=0.1, dx=[0.01, 0.01, 0.03, 0.02]), 7.0)
    action = scheduler.next_action(7.0)
    assert isinstance(action, ScheduledAction)
    assert action.index == 2
    if schedule is Schedule.ASYNCHRONOUS:
        assert dx(action) == 0.03


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_a_chunk_that_is_past_altogether_leaves_the_arm_waiting(schedule):
    scheduler = make(schedule)
    scheduler.offer(chunk(0), 0.0)
    for i in range(4):
        scheduler.next_action(0.1 * i)
    scheduler.offer(chunk(0), 0.4)
    absent = scheduler.next_action(0.4)
    assert isinstance(absent, NoAction)
    assert scheduler.wants_chunk(4)


@pytest.mark.parametrize("schedule", EVERY)
def test_nothing_is_dropped_when_the_arm_waited_for_the_answer(schedule):
    scheduler = make(schedule)
    scheduler.offer(chunk(0, steps=1), 0.0)
    scheduler.next_action(0.0)
    assert isinstance(scheduler.next_action(0.1), NoAction)
    scheduler.offer(chunk(1, captured_at_s=0.1, dx=0.02), 0.4)
    assert dx(scheduler.next_action(0.4)) == 0.02


@pytest.mark.parametrize("schedule", EVERY)
def test_an_action_whose_observation_is_too_old_does_not_begin(schedule):
    scheduler = make(schedule, max_age_s=0.15)
    scheduler.offer(chunk(0), 0.0)
    scheduler.next_action(0.0)
    scheduler.next_action(0.1)
    late = scheduler.next_action(0.2)
    assert isinstance(late, NoAction)
    assert late.is_overdue
    assert late.reason == "the next action is based on an observation 200 ms old, limit 150 ms"
    assert scheduler.consumed == 2


@pytest.mark.parametrize("schedule", EVERY)
def test_a_used_up_chunk_gives_the_policy_time_for_the_next(schedule):
    scheduler = make(schedule, max_age_s=0.15)
    scheduler.offer(chunk(0, steps=1), 0.0)
    scheduler.next_action(0.1)
    used_up, much_later = scheduler.next_action(0.2), scheduler.next_action(0.4)
    assert isinstance(used_up, NoAction)
    assert isinstance(much_later, NoAction)
    assert (used_up.is_overdue, much_later.is_overdue) == (False, True)


@pytest.mark.parametrize("schedule", [Schedule.ASYNCHRONOUS, Schedule.REAL_TIME_CHUNKING])
def test_an_older_answer_never_replaces_a_newer_one(schedule):
    scheduler = make(schedule)
    scheduler.offer(chunk(0), 0.0)
    scheduler.next_action(0.0)
    scheduler.offer(chunk(1, 0.1, dx=0.02), 0.15)
    scheduler.offer(chunk(0, 0.0, dx=0.04), 0.16)
    action = scheduler.next_action(0.2)
    assert isinstance(action, ScheduledAction)
    assert action.chunk.capture.base == 1


@pytest.mark.parametrize("schedule", EVERY)
def test_no_more_actions_of_a_chunk_are_used_than_asked_for(schedule):
    scheduler = make(schedule, execute_steps=2)
    scheduler.offer(chunk(0, dx=0.02), 0.0)
    first, second = scheduler.next_action(0.0), scheduler.next_action(0.1)
    assert isinstance(first, ScheduledAction)
    assert isinstance(second, ScheduledAction)
    assert first.following is not None
    assert first.following[0] == pytest.approx(0.02)
    assert second.following is None
    assert isinstance(scheduler.next_action(0.2), NoAction)


@pytest.mark.parametrize("schedule", EVERY)
def test_a_new_episode_forgets_the_chunks_of_the_last(schedule):
    scheduler = make(schedule, max_age_s=0.15)
    scheduler.offer(chunk(0), 0.0)
    scheduler.next_action(0.0)
    scheduler.reset(0.05)
    assert scheduler.consumed == 0
    assert isinstance(scheduler.next_action(0.05), NoAction)


def test_the_synchronous_loop_asks_only_when_it_has_nothing_left_to_do():
    scheduler = make(Schedule.SYNCHRONOUS)
    assert scheduler.wants_chunk(0)
    scheduler.offer(chunk(0, steps=2), 0.2)
    assert not scheduler.wants_chunk(0)
    scheduler.next_action(0.2)
    assert not scheduler.wants_chunk(0)
    scheduler.next_action(0.3)
    assert not scheduler.wants_chunk(1)  # the last action has begun and is not over
    assert scheduler.wants_chunk(2)


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_the_others_ask_while_an_action_is_carried_out_unless_answers_are_single_actions(schedule):
    scheduler = make(schedule)
    scheduler.offer(chunk(0), 0.0)
    scheduler.next_action(0.0)
    assert scheduler.wants_chunk(0)
    scheduler.reset(0.0)
    scheduler.offer(chunk(0, steps=1), 0.1)
    scheduler.next_action(0.1)
    assert not scheduler.wants_chunk(0)
    assert scheduler.wants_chunk(1)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("schedule", EVERY)
def test_after_a_stall_the_outdated_chunk_gives_way_to_a_fresh_one(schedule, steps):
    scheduler = make(schedule, max_age_s=0.15)
    scheduler.offer(chunk(0, captured_at_s=0.0, steps=steps, dx=0.01), 2.0)
    assert isinstance(scheduler.next_action(2.0), NoAction)
    assert scheduler.wants_chunk(0)
    scheduler.offer(chunk(0, captured_at_s=2.0, steps=steps, dx=0.03), 2.05)
    assert dx(scheduler.next_action(2.05)) == 0.03


def test_a_record_gives_the_actions_since_a_number_and_forgets_only_very_old_ones():
    record = Record(SPEC)
    assert record.since(0).shape == (0, 7)
    for number in range(1000):
        record.add(np.full(7, number, np.float32))
    assert record.count == 1000
    np.testing.assert_array_equal(record.since(997)[:, 0], [997, 998, 999])
    assert record.since(1000).shape == (0, 7)
    assert 64 < len(record.since(0)) < 1000


def test_the_configured_scheduler_takes_its_age_limit_from_the_settings():
    scheduler = build_scheduler(ControlConfig(max_action_age_ms=300.0))
    scheduler.offer(chunk(0), 0.0)
    assert isinstance(scheduler.next_action(0.29), ScheduledAction)
    assert isinstance(scheduler.next_action(0.31), NoAction)


@pytest.mark.parametrize("schedule", EVERY)
def test_every_schedule_of_the_settings_has_its_scheduler(schedule):
    name = type(build_scheduler(ControlConfig(schedule=schedule))).__name__
    assert name.lower() == schedule.value.replace("_", "")


def test_a_negative_decay_is_refused():
    with pytest.raises(ConfigError, match=r"control\.ensemble_decay is -1"):
        ControlConfig(ensemble_decay=-1.0)
