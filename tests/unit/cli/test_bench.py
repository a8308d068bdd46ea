import pytest

from envs.config import EnvConfig
from policies.config import PolicyConfig, PolicyKind
from vla.cli import bench
from vla.cli.bench import BenchConfig
from vla.errors import ConfigError

SMALL = EnvConfig(task="reach", cameras=[])


def test_latency_is_that_of_the_policy_and_counts_whole_chunks(tmp_path, capsys):
    cfg = BenchConfig(env=SMALL, policy=PolicyConfig(kind=PolicyKind.HOLD), calls=5, warmup=1)
    figures = bench.run(cfg, tmp_path)
    assert figures["calls"] == 5
    assert figures["chunk_length"] == 1
    assert figures["actions_per_second"] == pytest.approx(1000 / figures["p50_ms"])
    assert figures["peak_memory_mb"] > 10
    assert "p99_ms" in capsys.readouterr().out


def test_simulation_speed_is_per_second_of_processor_time(tmp_path):
    figures = bench.run(BenchConfig(name="simulation", env=SMALL, calls=20, warmup=0), tmp_path)
    assert figures["steps_per_cpu_second"] == pytest.approx(1000 / figures["cpu_ms"])
    assert figures["machine"]["python"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "latencie"}, "unknown benchmark 'latencie'; .*did you mean 'latency'"),
        ({"calls": 0}, "calls must be at least 1"),
    ],
)
def test_settings_that_measure_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        BenchConfig(**settings)
