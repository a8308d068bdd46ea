"""How long calls take, as quantiles: one slow call in a hundred matters to a control loop and vanishes in a mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Durations of repeated calls.

    Attributes:
        calls: how many were measured.
        p50_ms: half of them took less, by the wall clock.
        p90_ms: nine in ten.
        p99_ms: ninety-nine in a hundred.
        max_ms: the slowest.
        cpu_ms: mean processor time of this process per call, all threads together.
    """

    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_ms: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def time_calls(call: Callable[[], object], *, calls: int, warmup: int = 0) -> Timings:
    """Returns the durations of `calls` calls, after `warmup` that are not counted.

    `call` must have finished its work when it returns; on a GPU it has to wait for the device.
    """
    if calls < 1 or warmup < 0:
        raise ConfigError(
            f"calls must be at least 1 and warmup 0 or more; got {calls} and {warmup}"
        )
    for _ in range(warmup):
        call()
    seconds = np.empty(calls)
    cpu_before = time.process_time()
    for index in range(calls):
        started = time.perf_counter()
        call()
        seconds[index] = time.perf_counter() - started
    cpu_s = time.process_time() - cpu_before
    p50, p90, p99 = (float(value) for value in 1000 * np.quantile(seconds, [0.5, 0.9, 0.99]))
    return Timings(
        calls=calls,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        max_ms=1000 * float(seconds.max()),
        cpu_ms=1000 * cpu_s / calls,
    )
