import numpy as np
import pytest

from vla.control.schedule import Schedule, SchedulerSettings
from vla.control.schedulers import make_scheduler
from vla.evaluation.latency import Timeline
from vla.types import END_EFFECTOR_DELTA_7D as SPEC

NOT_WAITING = [schedule for schedule in Schedule if schedule is not Schedule.SYNCHRONOUS]


def run(
    schedule: Schedule, latency_ms: float, num_steps: int = 14, execute_steps: int = 0, steps=4
):
    """Returns the steps at which a policy of chunks 1, 2, 3, 4 mm was asked, and what was carried out, in mm."""
    settings = SchedulerSettings(spec=SPEC, execute_steps=execute_steps, gripper_pause=False)
    timeline = Timeline(make_scheduler(schedule, settings), SPEC, 1e-3 * latency_ms)
    chunk = np.zeros((steps, 7), np.float32)
    chunk[:, 0], chunk[:, 6] = 1e-3 * np.arange(1, steps + 1), 1.0
    asked: list[int] = []
    carried_out: list[float] = []
    while len(carried_out) < num_steps:
        action = timeline.step()
        if action is None:
            asked.append(len(carried_out))
            timeline.answer(chunk)
        else:
            carried_out.append(round(1000 * float(action[0]), 3))
    return asked, carried_out


def test_without_latency_the_synchronous_loop_is_the_policy_as_it_is():
    assert run(Schedule.SYNCHRONOUS, 0, 8) == ([0, 4], [1, 2, 3, 4, 1, 2, 3, 4])
    assert run(Schedule.SYNCHRONOUS, 0, 4, execute_steps=1) == ([0, 1, 2, 3], [1, 1, 1, 1])


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_without_latency_the_others_are_asked_before_every_action(schedule):
    asked, carried_out = run(schedule, 0, 6)
    assert asked == [0, 1, 2, 3, 4, 5]
    if schedule is Schedule.ASYNCHRONOUS:
        assert carried_out == [1] * 6


def test_the_synchronous_loop_rests_for_as_long_as_the_policy_thinks():
    asked, carried_out = run(Schedule.SYNCHRONOUS, 200, 12)
    assert asked == [0, 6]
    assert carried_out == [0, 0, 1, 2, 3, 4] * 2


def test_parts_of_a_step_add_up_to_whole_ones():
    _, carried_out = run(Schedule.SYNCHRONOUS, 50, 9, execute_steps=2)
    assert carried_out == [1, 2, 0, 1, 2, 1, 2, 0, 1]


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_the_others_rest_only_before_the_first_answer(schedule):
    asked, carried_out = run(schedule, 200, 10)
    assert carried_out[:2] == [0, 0]
    assert all(step != 0 for step in carried_out[2:])
    assert asked[:4] == [0, 2, 4, 6]  # as often as a policy that needs two steps can be asked


def test_of_a_chunk_that_is_two_steps_late_two_actions_are_past():
    # Asked at 0 (answered at 2: 1 2), at 2 (answered at 4: its first two are past), and so on.
    _, carried_out = run(Schedule.ASYNCHRONOUS, 200, 8)
    assert carried_out[2:4] == [1, 2]
    # Goals: 1 + 2 + 3 = 6 mm from where the arm was when asked; 1 + 2 have been carried out by then.
    assert carried_out[4:8] == [3, 4, -1, 4]


@pytest.mark.parametrize("schedule", list(Schedule))
def test_a_latency_as_long_as_the_chunk_makes_every_schedule_wait(schedule):
    _, carried_out = run(schedule, 400, 16)
    assert carried_out == [0, 0, 0, 0, 1, 2, 3, 4] * 2


def test_a_policy_of_single_actions_is_never_asked_in_vain():
    for schedule in Schedule:
        asked, carried_out = run(schedule, 100, 6, steps=1)
        assert asked == [0, 2, 4]
        assert carried_out == [0, 1] * 3


def test_while_the_arm_waits_the_gripper_stays_as_it_was():
    timeline = Timeline(make_scheduler(Schedule.SYNCHRONOUS, SchedulerSettings()), SPEC, 0.1)
    grips = []
    for gripper in (0.0, 1.0):
        assert timeline.step() is None
        timeline.answer(np.array([[0, 0, 0, 0, 0, 0, gripper]], np.float32))
        while (action := timeline.step()) is not None:
            grips.append(float(action[6]))
    assert grips == [1, 0, 0, 1]  # open until told otherwise
