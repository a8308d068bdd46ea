"""The control loop itself on a simulated clock, tick for tick, with scripted latencies: which action begins when."""

from itertools import pairwise

import numpy as np
import pytest

from vla.control.clock import Tick
from vla.control.log import Mode
from vla.control.policy_side import FaultConfig, Lockstep, PolicySide
from vla.control.schedule import Schedule
from vla.types import ActionChunk, Observation

STEP_M = 0.002
NOT_WAITING = [schedule for schedule in Schedule if schedule is not Schedule.SYNCHRONOUS]


class Line:
    """Always wants to go on along x by 2 mm an action, in chunks of four; keeps what it was asked."""

    def __init__(self, steps: int = 4) -> None:
        self.steps = steps
        self.asked: list[Observation] = []

    def begin_episode(self):
        return {}

    def observe(self, snapshot) -> Observation:
        captured_at_s = snapshot.number("captured_at_s")
        return Observation(
            images={}, state=np.zeros(7), instruction="", captured_at_s=captured_at_s
        )

    def outcome(self) -> str:
        return ""

    def act(self, observation) -> ActionChunk:
        self.asked.append(observation)
        actions = np.zeros((self.steps, 7), np.float32)
        actions[:, 0], actions[:, 6] = STEP_M, 1.0
        return ActionChunk(actions=actions)


class Run:
    """A run of `num_actions` action periods of 100 ms at 100 Hz; what began, and from which chunk."""

    def __init__(
        self,
        make_bench,
        schedule: Schedule,
        latency_s,
        *,
        num_actions=20,
        in_flight=1,
        steps=4,
        **faults,
    ) -> None:
        bench = make_bench(schedule=schedule, max_action_age_ms=1000.0)
        self.player = Line(steps)
        side = PolicySide(self.player, bench.links, FaultConfig(**faults), bench.clock)
        side.start()
        bench.loop.take_scene()
        lockstep = Lockstep(side, bench.links, bench.clock, latency_s, in_flight)
        for index in range(1, 10 * num_actions + 1):
            deadline = index * bench.config.period_s
            bench.clock.sleep_until(deadline)
            bench.loop.tick(Tick(index, deadline, 0.0, 0))
            lockstep.after_tick()
        rows = bench.log.rows()
        begins = np.flatnonzero(np.diff(rows["consumed"], prepend=0))
        self.begin_ticks = begins.tolist()
        self.indices = rows["index_in_chunk"][begins].tolist()
        self.chunks = rows["chunk"][begins].tolist()
        self.ages_ms = (1e3 * rows["action_age_s"][begins]).round().astype(int).tolist()
        self.modes = [Mode(mode) for mode in rows["mode"]]
        self.positions = rows["tool"][:, 0]  # m, along x
        self.commands = np.array(bench.arm.commands)

    @property
    def gaps(self) -> list[int]:
        """Ticks from one action's begin to the next."""
        return [later - earlier for earlier, later in pairwise(self.begin_ticks)]


def test_without_latency_every_action_is_the_first_or_second_of_a_fresh_chunk(make_bench):
    run = Run(make_bench, Schedule.ASYNCHRONOUS, 0.0)
    # An action begins before its own snapshot can be answered, so the answer counts from the next action on.
    assert set(run.indices[1:]) == {1}
    assert set(run.gaps) == {10}


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_at_a_latency_of_1_4_periods_two_actions_of_each_chunk_are_past(make_bench, schedule):
    run = Run(make_bench, schedule, 0.14)
    assert run.indices[3:13] == [2, 3] * 5
    assert set(run.gaps) == {10}  # and yet the arm never waits
    assert Mode.WAIT not in run.modes


def test_the_synchronous_loop_waits_for_every_chunk(make_bench):
    run = Run(make_bench, Schedule.SYNCHRONOUS, 0.14)
    assert run.indices[:8] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert run.gaps[:7] == [10, 10, 10, 10 + 15, 10, 10, 10]
    assert run.modes.count(Mode.WAIT) > 20


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_a_spike_uses_the_old_chunk_up_then_waits_and_goes_on(make_bench, schedule):
    run = Run(make_bench, schedule, lambda asked: 0.5 if asked == 4 else 0.05)
    # The slow answer was asked for when action 3 began, so three actions of it are past: no more, however late it is.
    assert run.indices[:8] == [0, 1, 1, 1, 2, 3, 3, 1]
    assert run.gaps[:5] == [10] * 5
    assert run.gaps[5] == 31
    assert set(run.gaps[6:]) == {10}


@pytest.mark.parametrize("schedule", NOT_WAITING)
def test_a_lost_chunk_costs_nothing_while_the_one_before_lasts(make_bench, schedule):
    run = Run(make_bench, schedule, lambda asked: None if asked == 4 else 0.05)
    assert set(run.gaps) == {10}
    assert max(run.indices) == 2


@pytest.mark.parametrize("schedule", [Schedule.ASYNCHRONOUS, Schedule.REAL_TIME_CHUNKING])
def test_a_chunk_that_was_overtaken_is_ignored(make_bench, schedule):
    run = Run(make_bench, schedule, lambda asked: 0.25 if asked == 3 else 0.05, in_flight=2)
    assert set(run.gaps) == {10}
    captured = np.asarray(run.begin_ticks) * 10 - np.asarray(run.ages_ms)
    assert (np.diff(captured) >= 0).all()  # never back to an older observation


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("latency_s", [0.0, 0.05, 0.14, 0.2])
def test_a_straight_line_stays_one_whatever_the_latency(make_bench, schedule, latency_s):
    """Every action is 2 mm, so the way shows whether actions were lost, repeated or shifted."""
    run = Run(make_bench, schedule, latency_s, num_actions=16)
    way = run.positions[-1] - run.positions[0]
    num_ended = len(run.begin_ticks) - 1 + (len(run.positions) - 1 - run.begin_ticks[-1]) / 10
    assert way == pytest.approx(STEP_M * num_ended, abs=1.1 * STEP_M)
    assert (np.diff(run.positions) > -1e-5).all()


def test_real_time_chunking_tells_the_policy_what_it_will_carry_out(make_bench):
    run = Run(make_bench, Schedule.REAL_TIME_CHUNKING, 0.14)
    promised = [len(observation.committed) for observation in run.player.asked]
    assert promised[0] == 0
    assert set(promised[2:]) == {2}
    np.testing.assert_allclose(run.player.asked[-1].committed[:, 0], STEP_M, atol=1e-6)


@pytest.mark.parametrize("schedule", [Schedule.SYNCHRONOUS, Schedule.ASYNCHRONOUS])
def test_the_others_commit_to_nothing(make_bench, schedule):
    run = Run(make_bench, schedule, 0.14)
    assert {len(observation.committed) for observation in run.player.asked} == {0}


def test_a_policy_of_single_actions_is_waited_for_by_every_schedule(make_bench):
    for schedule in Schedule:
        run = Run(make_bench, schedule, 0.04, steps=1)
        assert set(run.indices) == {0}
        assert len(run.begin_ticks) >= 10


@pytest.mark.parametrize("schedule", list(Schedule))
def test_the_same_script_gives_the_same_run_bit_for_bit(make_bench, schedule):
    def latency(asked: int) -> float | None:
        return [0.05, 0.2, None, 0.12, 0.0][asked % 5]

    first, second = (Run(make_bench, schedule, latency, in_flight=2) for _ in range(2))
    assert first.begin_ticks == second.begin_ticks
    np.testing.assert_array_equal(first.commands, second.commands)
