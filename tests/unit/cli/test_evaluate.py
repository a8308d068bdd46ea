import json

import pytest
from fakes import FakeEnv, FakePolicy

from envs.config import EnvConfig
from policies.config import Ensemble, PolicyConfig, PolicyKind
from vla.cli import build, evaluate
from vla.cli.evaluate import EvalConfig
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


@pytest.mark.parametrize(
    "policy", [PolicyConfig(ensemble=Ensemble.ACT), PolicyConfig(temperature=1.0)]
)
def test_side_by_side_episodes_allow_no_policy_with_a_memory(policy):
    with pytest.raises(ConfigError, match="or batch_size=1"):
        _config(policy=policy, batch_size=2)
