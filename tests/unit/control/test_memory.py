import os

import numpy as np
import pytest

from vla.control import memory
from vla.control.memory import MemoryWatch, private_mb


def test_this_process_holds_some_memory_and_more_after_taking_some():
    before = private_mb(os.getpid())
    block = np.ones(64 << 20, np.uint8)
    after = private_mb(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 32
    del block


def test_a_process_that_is_gone_holds_nothing():
    assert private_mb(2**22 - 3) is None


def watched(sizes: list[float], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    values = iter(sizes)
    monkeypatch.setattr(memory, "private_mb", lambda _: next(values))
    watch = MemoryWatch({"policy": 1})
    for second in range(len(sizes)):
        watch.poll(float(second))
        watch.poll(second + 0.5)  # too soon for another sample
    return watch.facts()["policy"]


def test_growth_is_measured_once_the_first_half_is_over(monkeypatch):
    facts = watched([50.0, 80.0, *[100.0] * 6], monkeypatch)
    assert facts["growth_mb_per_min"] == pytest.approx(0.0, abs=1e-9)
    assert (facts["start_mb"], facts["settled_mb"], facts["end_mb"]) == (50.0, 100.0, 100.0)


def test_a_leak_is_seen_as_growth(monkeypatch):
    facts = watched([100.0 + 0.5 * second for second in range(40)], monkeypatch)
    assert facts["growth_mb_per_min"] == pytest.approx(30.0)


def test_a_process_that_is_just_ending_does_not_count(monkeypatch):
    assert watched([100.0, 100.0, 100.0, 0.0], monkeypatch)["end_mb"] == 100.0
