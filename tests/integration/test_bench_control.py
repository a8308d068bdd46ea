"""`vla bench control`, a few seconds of it: what is counted is checked, how fast this machine is is not."""

import pytest

from vla.cli.bench import BenchConfig, run
from vla.cli.config import compose


def bench(directory, *overrides: str) -> dict:
    return run(compose("bench", BenchConfig, ["name=control", "seconds=2", *overrides]), directory)


def assert_is_a_drive(phase: dict, rate: float) -> None:
    assert phase["ticks"] + phase["misses"] >= 2 * rate - 2
    assert phase["deadline_ms"] == pytest.approx(1e3 / rate)
    assert phase["answers"] > 0
    assert phase["limit_violations"] == 0
    assert {"control", "policy"} == set(phase["memory_mb"])
    assert phase["p50_ms"] <= phase["p99_ms"] <= phase["p999_ms"] <= phase["max_ms"]


def test_the_bench_drives_while_a_policy_answers_in_the_other_process(tmp_path, capsys):
    figures = bench(tmp_path, "policy=random", "compare=false", "rate=50")
    assert list(figures["phases"]) == ["realtime"]
    assert_is_a_drive(figures["phases"]["realtime"], 50.0)
    assert [channel["messages"] for channel in figures["channels"]] == [200] * 3
    printed = capsys.readouterr().out
    assert "missed 20 ms" in printed
    assert "one way p50" in printed


@pytest.mark.slow  # starts torch in a process of its own, twice
def test_the_bench_compares_with_an_ordinary_process_while_the_tiny_policy_computes(tmp_path):
    figures = bench(tmp_path)
    assert list(figures["phases"]) == ["realtime", "ordinary"]
    for phase in figures["phases"].values():
        assert_is_a_drive(phase, 100.0)
    assert figures["phases"]["ordinary"]["scheduling"] == "normal"
