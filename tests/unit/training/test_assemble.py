"""Whole runs on a dataset of a few frames: learning, resuming, fine-tuning, freezing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import make_episode, write_dataset

from vla.checkpoints import native
from vla.errors import ConfigError, DatasetError
from vla.training.assemble import train_policy
from vla.training.config import (
    BackboneConfig,
    DataConfig,
    OptimConfig,
    Part,
    Precision,
    RunConfig,
    TrainingConfig,
)
from vla.training.track import JsonlTracker, read_jsonl

SMALL = BackboneConfig(
    image_size=16,
    width=32,
    depth=1,
    vision_width=32,
    vision_depth=1,
    chunk_length=2,
    text_vocab_size=270,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demonstrations"
    return write_dataset(root, [make_episode(k, 6) for k in range(10)])


def config(dataset: Path, steps: int = 12, **changes: Any) -> RunConfig:
    training = TrainingConfig(
        steps=steps, batch_size=4, precision=Precision.FP32, num_threads=1, log_every=2, validate_every=6,
        checkpoint_every=4, validation_batches=2, optim=OptimConfig(learning_rate=3e-3, warmup_steps=2),
    )  # fmt: skip
    data = DataConfig(roots=[str(dataset)], validation_fraction=0.2)
    return dataclasses.replace(RunConfig(data=data, backbone=SMALL, training=training), **changes)


def run(cfg: RunConfig, directory: Path) -> dict[str, Any]:
    tracker = JsonlTracker(directory / "metrics.jsonl", keep_rows=cfg.resume)
    try:
        return train_policy(cfg, directory, tracker, corpus=["open the drawer"])
    finally:
        tracker.close()


class Killed(BaseException):
    """Stands for a kill: not caught by anything on the way out."""


def test_the_loss_falls_and_the_summary_speaks_in_physical_units(dataset: Path, tmp_path: Path):
    summary = run(config(dataset, steps=60), tmp_path)
    losses = [
        row["train/loss"] for row in read_jsonl(tmp_path / "metrics.jsonl") if "train/loss" in row
    ]
    assert losses[-1] < 0.9 * losses[0]
    assert 0 < summary["metrics"]["action_l1/dx"] < 0.08  # metres
    assert summary["samples"] == 240


def test_a_run_that_was_killed_ends_with_the_same_weights_bit_for_bit(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run(config(dataset), whole)
    steps = iter(range(100))
    original = torch.optim.AdamW.step

    def step_or_die(self: Any, *args: Any) -> Any:
        if next(steps) == 7:  # after the checkpoint of step 4
            raise Killed
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step_or_die)
        with pytest.raises(Killed):
            run(config(dataset), torn)
    run(config(dataset, resume=True), torn)
    ours, theirs = native.load_training_state(torn), native.load_training_state(whole)
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, tensor in ours.tensors.items():
        assert torch.equal(tensor, theirs.tensors[name]), name
    rows = [read_jsonl(folder / "metrics.jsonl") for folder in (torn, whole)]
    assert [r["train/loss"] for r in rows[0] if "train/loss" in r] == [
        r["train/loss"] for r in rows[1] if "train/loss" in r
    ]


def test_what_acts_is_the_average_and_what_resumes_is_the_live_weights(
    dataset: Path, tmp_path: Path
):
    run(config(dataset), tmp_path)
    acting = native.load(tmp_path).model.state_dict()
    tensors = native.load_training_state(tmp_path).tensors
    name = "backbone.connector.fc1.weight"
    assert torch.equal(acting[name], tensors[f"average.{name}"])
    assert not torch.equal(acting[name], tensors[f"weights.{name}"])


def test_fine_tuning_keeps_tokenizer_and_statistics_and_leaves_frozen_parts_alone(
    dataset: Path, tmp_path: Path
):
    run(config(dataset), tmp_path / "base")
    base = native.load(tmp_path / "base")
    cfg = config(dataset, init_from=str(tmp_path / "base"))
    cfg.training.frozen_parts = [Part.VISION]
    run(cfg, tmp_path / "tuned")
    tuned = native.load(tmp_path / "tuned")
    assert tuned.tokenizer.to_str() == base.tokenizer.to_str()
    assert tuned.contract.action_statistics.to_dict() == base.contract.action_statistics.to_dict()
    before, after = base.model.state_dict(), tuned.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(name.startswith("backbone.vision.") for name in moved)


def test_a_checkpoint_says_where_it_comes_from(dataset: Path, tmp_path: Path):
    run(config(dataset), tmp_path)
    described = json.loads((tmp_path / "checkpoints" / "latest" / "config.json").read_text())
    assert described["training"]["step"] == 12
    assert described["training"]["datasets"] == [str(dataset)]
    assert described["embodiment"]["camera_names"] == ["front", "wrist"]


def test_a_time_budget_ends_the_run_with_a_checkpoint(dataset: Path, tmp_path: Path):
    cfg = config(dataset, steps=100_000)
    cfg.training.max_seconds = 0.5
    summary = run(cfg, tmp_path)
    assert 0 < summary["step"] < 100_000
    assert native.find(tmp_path).name == f"step-{summary['step']:08d}"


def test_no_dataset_is_said_in_one_line(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"data\.roots"):
        run(RunConfig(), tmp_path)


def test_every_part_can_be_frozen_and_the_heads_still_train(dataset: Path, tmp_path: Path):
    cfg = config(dataset)
    cfg.training.frozen_parts = list(Part)
    torch.manual_seed(cfg.training.seed)
    run(cfg, tmp_path)
    state = native.load_training_state(tmp_path).tensors
    moments = "optimizer.exp_avg."
    trained = {name.removeprefix(moments) for name in state if name.startswith(moments)}
    assert "action_head.slots" in trained
    frozen = tuple(f"backbone.{part}." for part in ("vision", "connector", "decoder"))
    assert not any(name.startswith(frozen) for name in trained)


def test_a_gradient_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(
    dataset: Path, tmp_path: Path
):
    run(config(dataset), tmp_path)
    before = native.load_training_state(tmp_path).tensors
    cfg = config(dataset, steps=24, resume=True)
    cfg.training.loss.offset_weight = float("inf")
    with pytest.raises(ConfigError, match="gradient is not finite at step 12"):
        run(cfg, tmp_path)
    after = native.load_training_state(tmp_path).tensors
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_compiling_without_a_compiler_is_refused_before_the_first_step(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cfg = config(dataset)
    cfg.training.compile = True
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"training\.compile=false"):
        run(cfg, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        TrainingConfig(steps=0)
