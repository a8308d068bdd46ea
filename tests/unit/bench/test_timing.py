import time

import pytest

from vla.bench.timing import time_calls
from vla.errors import ConfigError


def test_quantiles_show_the_slow_call_that_a_median_hides():
    durations = iter([0.0] * 19 + [0.03])
    timings = time_calls(lambda: time.sleep(next(durations)), calls=20)
    assert timings.calls == 20
    assert timings.p50_ms < 10
    assert timings.max_ms >= 29
    assert timings.p50_ms <= timings.p90_ms <= timings.p99_ms <= timings.max_ms


def test_warm_up_calls_are_made_and_not_counted():
    made = []
    timings = time_calls(lambda: made.append(1), calls=3, warmup=4)
    assert len(made) == 7
    assert timings.calls == 3


def test_sleeping_takes_wall_time_and_no_processor_time():
    timings = time_calls(lambda: time.sleep(0.02), calls=3)
    assert timings.p50_ms >= 19
    assert timings.cpu_ms < 10


def test_measuring_nothing_is_refused():
    with pytest.raises(ConfigError, match="calls must be at least 1"):
        time_calls(lambda: None, calls=0)
