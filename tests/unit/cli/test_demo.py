import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vla.checkpoints.native import CONFIG
from vla.cli import collect, demo, demo_report, evaluate, train
from vla.cli.demo import DemoConfig, Finished
from vla.cli.deploy import command as deploy
from vla.errors import CheckpointError, ConfigError, VlaError
from vla.evaluation import html
from vla.training.config import RunConfig


class Verbs:
    """Stands in for what the verbs do: notes what they are asked and leaves what they would leave."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.failing = ""
        self.reporting_failure = ""

    def stand_in(self, config_class: type) -> Callable[[Any, Path], dict[str, Any]]:
        """Returns a `run` that takes the verb's real settings."""

        def run(cfg: Any, directory: Path) -> dict[str, Any]:
            phase = directory.name
            self.calls.append((phase, cfg))
            if phase == "train":
                checkpoint = directory / "checkpoints" / "latest"
                checkpoint.mkdir(parents=True, exist_ok=True)
                (checkpoint / CONFIG).write_text("{}")
            if phase == self.failing:
                raise VlaError(f"{phase} broke")
            return {"phase": phase, "exit_code": int(phase == self.reporting_failure)}

        run.__annotations__ = {"cfg": config_class, "directory": Path, "return": dict[str, Any]}
        return run

    @property
    def phases(self) -> list[str]:
        return [phase for phase, _ in self.calls]

    def asked(self, phase: str) -> Any:
        return next(cfg for name, cfg in reversed(self.calls) if name == phase)


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> Verbs:
    def build(cfg: DemoConfig, work: Path, finished: dict[str, Finished]) -> Any:
        return {"commands": len(finished)}, html.Page(title="", kicker="", verdict="")

    verbs = Verbs()
    for module, config_class in (
        (collect, collect.CollectConfig),
        (train, RunConfig),
        (evaluate, evaluate.EvalConfig),
        (deploy, deploy.DeployConfig),
    ):
        monkeypatch.setattr(module, "run", verbs.stand_in(config_class))
    monkeypatch.setattr(demo_report, "build", build)
    return verbs


@pytest.fixture
def cfg(tmp_path: Path) -> DemoConfig:
    start = tmp_path / "start"
    start.mkdir()
    (start / CONFIG).write_text("{}")
    return DemoConfig(checkpoint=str(start), train=["training.log_every=7"])


def _directory(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / "outputs of a demo" / name  # blanks, as in many home folders
    directory.mkdir(parents=True)
    return directory


def test_the_phases_run_in_order_with_settings_that_every_verb_knows(
    verbs: Verbs, cfg: DemoConfig, tmp_path: Path
):
    demo.run(cfg, _directory(tmp_path, "first"))
    assert verbs.phases == ["collect", "before", "train", "after", "deploy"]
    assert verbs.asked("collect").env.task == "open_drawer"
    assert verbs.asked("train").training.log_every == 7
    assert verbs.asked("train").data.roots == [str(verbs.asked("collect").root)]
    assert verbs.asked("deploy").env.task == "open_drawer"
    before, after = verbs.asked("before"), verbs.asked("after")
    assert (before.seeds, before.env) == (after.seeds, after.env)
    assert before.policy.path == cfg.checkpoint
    assert after.policy.path.endswith("train/checkpoints/latest")
    assert min(before.seeds) >= 1_000_000 > verbs.asked("collect").seed + cfg.demonstrations


def test_an_interrupted_demo_goes_on_with_the_phase_that_broke(
    verbs: Verbs, cfg: DemoConfig, tmp_path: Path
):
    verbs.failing = "after"
    with pytest.raises(VlaError, match="after broke"):
        demo.run(cfg, _directory(tmp_path, "first"))
    verbs.failing, verbs.calls = "", []
    demo.run(cfg, _directory(tmp_path, "second"))
    assert verbs.phases == ["after", "deploy"]


def test_a_phase_that_reports_a_failure_ends_the_demo_and_is_not_kept(
    verbs: Verbs, cfg: DemoConfig, tmp_path: Path
):
    verbs.reporting_failure = "deploy"
    with pytest.raises(VlaError, match=r"vla deploy robot=sim .* failed"):
        demo.run(cfg, _directory(tmp_path, "first"))
    verbs.reporting_failure, verbs.calls = "", []
    demo.run(cfg, _directory(tmp_path, "second"))
    assert verbs.phases == ["deploy"]


def test_an_interrupted_fine_tuning_is_resumed(cfg: DemoConfig, tmp_path: Path):
    done = Finished(command="", summary={}, seconds=1.0)
    finished = {"collect": done, "before": done}
    assert "resume=true" not in demo.train_phase(cfg, tmp_path, finished).overrides
    (tmp_path / demo.CHECKPOINT).mkdir(parents=True)
    assert "resume=true" in demo.train_phase(cfg, tmp_path, finished).overrides


def test_work_that_was_interrupted_is_found_again(cfg: DemoConfig, tmp_path: Path):
    (demo.unfinished_work(cfg, tmp_path) / "collect").mkdir()
    assert (demo.unfinished_work(cfg, tmp_path) / "collect").exists()


@pytest.mark.parametrize("change", [{"fresh": True}, {"demonstrations": 151}, {"task": "push"}])
def test_other_settings_or_fresh_start_over(
    cfg: DemoConfig, tmp_path: Path, change: dict[str, Any]
):
    (demo.unfinished_work(cfg, tmp_path) / "collect").mkdir()
    changed = DemoConfig(**{**vars(cfg), **change})
    assert not (demo.unfinished_work(changed, tmp_path) / "collect").exists()


def test_a_finished_demo_keeps_its_work_and_leaves_nothing_unfinished(
    verbs: Verbs, cfg: DemoConfig, tmp_path: Path
):
    first = _directory(tmp_path, "first")
    summary = demo.run(cfg, first)
    assert summary["checkpoint"] == first / "work" / "train" / "checkpoints" / "latest"
    assert (summary["checkpoint"] / CONFIG).exists()
    assert summary["report"].exists()
    assert json.loads((first / "work" / "train" / "summary.json").read_text())["phase"] == "train"
    assert not (first.parent / "unfinished").exists()


def test_fine_tuning_gets_what_the_other_phases_leave(cfg: DemoConfig, tmp_path: Path):
    finished = {
        "collect": Finished(command="", summary={}, seconds=100.0),
        "before": Finished(command="", summary={}, seconds=50.0),
    }
    cfg.budget_seconds, cfg.robot_seconds = 700.0, 20.0
    phase = demo.train_phase(cfg, tmp_path, finished)
    left = 700 - 100 - 50 - 50 - 20 - demo.MARGIN_S
    assert f"training.max_seconds={left:.0f}" in phase.overrides


def test_fine_tuning_gets_a_minute_however_slow_the_rest_was(cfg: DemoConfig, tmp_path: Path):
    slow = Finished(command="", summary={}, seconds=10_000.0)
    phase = demo.train_phase(cfg, tmp_path, {"collect": slow, "before": slow})
    assert "training.max_seconds=60" in phase.overrides


def test_a_checkpoint_that_is_not_there_is_refused_before_anything_is_done(
    verbs: Verbs, tmp_path: Path
):
    with pytest.raises(CheckpointError):
        demo.run(DemoConfig(checkpoint="no such policy"), _directory(tmp_path, "first"))
    assert verbs.calls == []


@pytest.mark.parametrize(
    "setting", [{"demonstrations": 3}, {"episodes": 0}, {"robot_seconds": 0.0}]
)
def test_a_demo_too_small_to_show_anything_is_refused(setting: dict[str, Any]):
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} must be at least"):
        DemoConfig(**setting)
