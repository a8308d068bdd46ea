import pytest

from vla.control.clock import Deadlines, MonotonicClock, SimulatedClock


def test_deadlines_are_absolute_so_that_a_late_tick_does_not_move_the_next():
    clock = SimulatedClock(start_s=5.0, wake_delays_s=[0.0, 0.003, 0.0])
    deadlines = Deadlines(clock, period_s=0.01)
    ticks = [deadlines.wait() for _ in range(3)]
    assert [tick.deadline_s for tick in ticks] == pytest.approx([5.0, 5.01, 5.02])
    assert [tick.lateness_s for tick in ticks] == pytest.approx([0.0, 0.003, 0.0])
    assert [tick.skipped for tick in ticks] == [0, 0, 0]


def test_work_longer_than_a_period_makes_the_next_tick_late_but_skips_nothing():
    clock = SimulatedClock()
    deadlines = Deadlines(clock, period_s=0.01)
    deadlines.wait()
    clock.advance(0.015)
    tick = deadlines.wait()
    assert (tick.index, tick.skipped) == (1, 0)
    assert tick.lateness_s == pytest.approx(0.005)


def test_deadlines_that_have_passed_altogether_are_skipped_and_counted():
    clock = SimulatedClock()
    deadlines = Deadlines(clock, period_s=0.01)
    deadlines.wait()
    clock.advance(0.035)
    tick = deadlines.wait()
    assert (tick.index, tick.skipped) == (4, 3)
    assert tick.lateness_s == pytest.approx(0.0)
    assert deadlines.wait().index == 5


def test_a_simulated_clock_never_goes_backwards():
    clock = SimulatedClock(start_s=1.0)
    clock.sleep_until(0.5)
    assert clock.now() == 1.0


def test_the_monotonic_clock_does_not_wake_early():
    clock = MonotonicClock()
    for _ in range(20):
        instant = clock.now() + 0.001
        clock.sleep_until(instant)
        assert clock.now() >= instant


def test_the_monotonic_clock_returns_at_once_when_the_instant_has_passed():
    clock = MonotonicClock()
    before = clock.now()
    clock.sleep_until(before - 10.0)
    assert clock.now() - before < 1.0
