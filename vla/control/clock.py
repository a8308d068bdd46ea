"""Time for a control loop: a monotonic clock that sleeps until absolute instants, and a simulated one for tests."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

_CLOCK_MONOTONIC = 1
_TIMER_ABSTIME = 1


class Clock(Protocol):
    """Seconds that never go backwards, and a sleep that ends at an instant instead of lasting a while."""

    def now(self) -> float:
        """Returns the present instant in seconds."""
        ...

    def sleep_until(self, instant_s: float) -> None:
        """Returns at `instant_s` or a little later; at once when it has passed."""
        ...


class MonotonicClock:
    """CLOCK_MONOTONIC, which all processes of one machine share, so that stamps can cross between them."""

    def __init__(self) -> None:
        self._sleep: Callable[[float], None] = _absolute_sleep() or self._relative_sleep

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, instant_s: float) -> None:
        while time.monotonic() < instant_s:  # a signal may end the sleep early
            self._sleep(instant_s)

    def _relative_sleep(self, instant_s: float) -> None:
        time.sleep(max(0.0, instant_s - time.monotonic()))


class SimulatedClock:
    """A clock that advances only when somebody sleeps, plus scripted delays: a late wake-up without a real one."""

    def __init__(self, start_s: float = 0.0, wake_delays_s: Iterable[float] = ()) -> None:
        self._now_s = start_s
        self._delays: Iterator[float] = iter(wake_delays_s)

    def now(self) -> float:
        return self._now_s

    def sleep_until(self, instant_s: float) -> None:
        self._now_s = max(self._now_s, instant_s) + next(self._delays, 0.0)

    def advance(self, seconds: float) -> None:
        """Lets time pass, as work does on a real clock."""
        self._now_s += seconds


@dataclass(frozen=True, slots=True)
class Tick:
    """One wake-up of a periodic loop.

    Attributes:
        index: which deadline this is; deadline 0 is the start.
        deadline_s: when the loop should have woken.
        lateness_s: how much later it did.
        skipped: deadlines before this one that passed without a wake-up.
    """

    index: int
    deadline_s: float
    lateness_s: float
    skipped: int


class Deadlines:
    """The instants start + k x period, met one after the other.

    A late wake-up shortens the following sleep and never moves later deadlines. Deadlines that have passed altogether
    when the work of a tick ends are skipped and counted, not caught up in a burst.
    """

    def __init__(self, clock: Clock, period_s: float) -> None:
        self._clock = clock
        self._period_s = period_s
        self._start_s = clock.now()
        self._index = -1

    def wait(self) -> Tick:
        """Sleeps until the next deadline and says how late the wake-up was."""
        following = self._index + 1
        elapsed_periods = (self._clock.now() - self._start_s) / self._period_s
        if (
            elapsed_periods > following + 1
        ):  # more than a whole period late already: go on with one to come
            following = int(elapsed_periods) + 1
        skipped = following - self._index - 1
        self._index = following
        deadline_s = self._start_s + following * self._period_s
        self._clock.sleep_until(deadline_s)
        return Tick(following, deadline_s, self._clock.now() - deadline_s, skipped)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _absolute_sleep() -> Callable[[float], None] | None:
    """Returns clock_nanosleep(TIMER_ABSTIME), or None where there is no such call.

    time.sleep takes a duration: being preempted between reading the clock and sleeping would add to the lateness.
    """
    if not sys.platform.startswith("linux"):
        return None
    nanosleep = ctypes.CDLL(None, use_errno=True).clock_nanosleep

    def sleep(instant_s: float) -> None:
        seconds = int(instant_s)
        request = _Timespec(seconds, int((instant_s - seconds) * 1e9))
        nanosleep(_CLOCK_MONOTONIC, _TIMER_ABSTIME, ctypes.byref(request), None)

    return sleep
