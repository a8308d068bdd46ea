import json

import pytest
from fakes import FakeEnv, FakePolicy

from envs.config import EnvConfig
from policies.config import PolicyConfig, PolicyKind
from vla.cli import build, evaluate
from vla.cli.evaluate import EvalConfig
from vla.control.schedule import Schedule
from vla.errors import CheckpointError, ConfigError


class CrashingPolicy(FakePolicy):
    def act(self, observation):
        if len(self.reset_seeds) == 2 and self.seen:
            raise RuntimeError("lost the connection")
        return super().act(observation)


def _config(**settings):
    defaults = {"episodes": 3, "num_workers": 0, "policy": PolicyConfig(kind=PolicyKind.HOLD)}
    return EvalConfig(**{**defaults, **settings})


@pytest.fixture
def fake(monkeypatch):
    """Puts a quick environment and a good policy in the place of the real ones."""
    monkeypatch.setattr(build, "build_env", lambda config: FakeEnv())
    monkeypatch.setattr(build, "build_policy", lambda config, env: FakePolicy())


def test_the_summary_and_the_files_tell_the_same_story(fake, tmp_path, capsys):
    summary = evaluate.run(_config(), tmp_path)
    assert summary["success_rate"] == 1.0
    assert summary["episodes"] == 3
    assert summary["seeds"] == [1_000_000, 1_000_001, 1_000_002]
    assert {"low", "high", "per_task", "failures", "policy", "env"} <= summary.keys()
    assert "exit_code" not in summary
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == summary["seeds"]
    assert (tmp_path / "episodes.mp4").stat().st_size > 1000
    assert not (tmp_path / ".frames").exists()
    assert "100.0 %" in capsys.readouterr().out


def test_a_crash_is_kept_with_its_traceback_out_of_the_rate_and_ends_with_status_1(
    fake, monkeypatch, tmp_path
):
    monkeypatch.setattr(build, "build_policy", lambda config, env: CrashingPolicy())
    summary = evaluate.run(_config(save_video=False), tmp_path)
    assert summary["exit_code"] == 1
    assert summary["episodes"] == 2
    assert summary["success_rate"] == 1.0
    assert summary["exceptions"] == [
        {
            "seed": 1_000_001,
            "error": "RuntimeError: lost the connection",
            "file": "exceptions/1000001.txt",
        }
    ]
    text = (tmp_path / "exceptions" / "1000001.txt").read_text()
    assert "Traceback" in text
    assert "lost the connection" in text


def test_no_video_is_written_when_none_is_wanted(fake, tmp_path):
    evaluate.run(_config(save_video=False), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes.jsonl"]


def test_the_expert_solves_the_real_table(tmp_path):
    summary = evaluate.run(
        _config(
            env=EnvConfig(task="reach", cameras=[]),
            policy=PolicyConfig(kind=PolicyKind.EXPERT),
            save_video=False,
        ),
        tmp_path,
    )
    assert summary["success_rate"] == 1.0
    assert list(summary["per_task"]) == ["reach"]


def test_a_checkpoint_that_is_not_there_is_found_before_anything_starts(tmp_path):
    with pytest.raises(CheckpointError, match="no_such_policy"):
        evaluate.run(_config(policy=PolicyConfig(path="no_such_policy")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_side_by_side_episodes_allow_no_policy_that_draws():
    with pytest.raises(ConfigError, match="or batch_size=1"):
        _config(policy=PolicyConfig(temperature=1.0), batch_size=2)


def test_several_latencies_and_schedulers_are_compared_on_the_same_scenes(fake, tmp_path, capsys):
    schedulers = [Schedule.SYNCHRONOUS, Schedule.REAL_TIME_CHUNKING]
    config = _config(latency_ms=[0.0, 100.0], scheduler=schedulers)
    summary = evaluate.run(config, tmp_path)
    assert [(case["scheduler"], case["latency_ms"]) for case in summary["cases"]] == [
        (scheduler.value, latency) for scheduler in schedulers for latency in (0.0, 100.0)
    ]
    lines = (tmp_path / "synchronous_100ms" / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1_000_000, 1_000_001, 1_000_002]
    assert "real time chunking" in capsys.readouterr().out
    assert "What a delay costs" in (tmp_path / "report.html").read_text()


def test_an_earlier_comparison_joins_the_report(fake, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    earlier = evaluate.run(_config(latency_ms=[0.0, 100.0], env=EnvConfig(task="push")), first)
    (first / "summary.json").write_text(json.dumps(earlier, default=str))
    evaluate.run(_config(latency_ms=[0.0, 200.0], beside=[first]), second)
    page = (second / "report.html").read_text()
    assert "push at 100 ms" in page
    assert "pick cube at 200 ms" in page


def test_a_folder_without_a_comparison_cannot_join(fake, tmp_path):
    with pytest.raises(ConfigError, match="holds no comparison"):
        evaluate.run(_config(beside=[tmp_path]), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latency_ms": []}, "latency_ms must be one value or several different ones"),
        ({"latency_ms": [0.0, 0.0]}, "several different ones"),
        ({"latency_ms": [-5.0]}, "latency_ms must lie in"),
        ({"ensemble_decay": -1.0}, "ensemble_decay must be 0 or more"),
    ],
)
def test_cases_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        _config(**settings)
