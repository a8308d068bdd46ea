"""The whole path on a small scale: the shipped policy, every verb, real files, real processes."""

import json
from pathlib import Path

import pytest

from vla.cli.main import main


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished demo of a few episodes and a few optimiser steps."""
    root = tmp_path_factory.mktemp("outputs")
    train = "'training.steps=4','training.validate_every=2','training.log_every=1','training.batch_size=8'"
    settings = ["demonstrations=10", "episodes=2", "robot_seconds=1", "collect=['num_workers=0']"]
    settings += ["eval=['num_workers=0']", f"train=[{train},'data.validation_fraction=0.2']"]
    status = main(["demo", f"output_root={root}", *settings])
    assert status == 0
    return root / "demo" / "latest"


def test_a_demo_leaves_a_summary_with_every_figure(directory: Path):
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "ok"
    for name in ("success_before", "success_after"):
        rate = summary[name]
        assert rate["episodes"] == 2
        assert 0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1
    assert summary["train_seconds"] > 0
    assert summary["deadline_misses"] >= 0
    assert summary["max_lateness_ms"] >= 0
    assert summary["limit_violations"] == 0
    assert set(summary["phases"]) == {"collect", "before", "train", "after", "deploy"}


def test_a_demo_leaves_one_page_that_needs_nothing_else(directory: Path):
    document = (directory / "report.html").read_text()
    assert document.count("data:video/mp4;base64,") >= 2
    assert "<polyline" in document
    assert "https://" not in document
    assert 'src="data:' in document


def test_the_fine_tuned_policy_can_be_used_again(directory: Path):
    policy = directory / "work" / "train" / "checkpoints" / "latest"
    root = directory.parents[1]
    settings = ["env=open_drawer", "episodes=1", "num_workers=0", "save_video=false"]
    assert main(["eval", f"policy={policy.resolve()}", f"output_root={root}", *settings]) == 0
    summary = json.loads((root / "eval" / "latest" / "summary.json").read_text())
    assert summary["episodes"] == 1
