"""Whole runs that decode with FAST: trained, resumed, loaded and asked to act, in each family."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import make_episode, write_dataset

from policies.vla_policy import VlaPolicy
from vla.checkpoints import native
from vla.errors import ConfigError
from vla.inference.engine import ActionEngine
from vla.models.action_config import ActionDecoding
from vla.models.backbones.families import Family
from vla.models.backbones.variant import Variant
from vla.training.assemble import build_batches, new_learner, open_datasets, train_policy
from vla.training.config import (
    BackboneConfig,
    DataConfig,
    OptimConfig,
    Precision,
    RunConfig,
    TrainingConfig,
)
from vla.training.objective import Objective
from vla.training.track import JsonlTracker, read_jsonl
from vla.types import TABLETOP, Observation

SHAPE = BackboneConfig(
    decoding=ActionDecoding.FAST, fast_vocab_size=128, image_size=16, width=32, depth=1, vision_width=32,
    vision_depth=1, chunk_length=3, text_vocab_size=270, grounding=True,
)  # fmt: skip
FAMILIES = {
    "prismatic": (Family.PRISMATIC, Variant()),
    "paligemma": (Family.PALIGEMMA, Variant()),
    "qwen2_vl": (Family.QWEN2_VL, Variant()),
    "gemma4": (Family.GEMMA4, Variant()),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("data") / "demonstrations", [make_episode(k, 6) for k in range(8)]
    )


def _config(dataset: Path, **changes) -> RunConfig:
    cfg = RunConfig(
        data=DataConfig(roots=[str(dataset)], validation_fraction=0.2),
        backbone=SHAPE,
        training=TrainingConfig(
            steps=2, batch_size=4, precision=Precision.FP32, num_threads=1, log_every=1, validate_every=2,
            checkpoint_every=1, validation_batches=1, optim=OptimConfig(learning_rate=3e-3, warmup_steps=1),
        ),
    )  # fmt: skip
    return replace(cfg, **changes)


def _run(cfg: RunConfig, directory: Path) -> dict:
    tracker = JsonlTracker(directory / "metrics.jsonl", keep_rows=cfg.resume)
    try:
        return train_policy(cfg, directory, tracker, corpus=[])
    finally:
        tracker.close()


def _observation(committed: np.ndarray | None = None) -> Observation:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return Observation(
        images={"front": picture, "wrist": picture},
        state=np.zeros(7, np.float32),
        instruction="pick up cube 1",
        committed=committed,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_and_its_policy_acts_within_limits(dataset, tmp_path, name):
    family, variant = FAMILIES[name]
    shape = replace(SHAPE, family=family, variant=variant)
    summary = _run(_config(dataset, backbone=shape), tmp_path)
    assert 0 <= summary["metrics"]["token_accuracy"] <= 1
    assert "action_l1/dx" not in summary["metrics"]
    policy = VlaPolicy.from_checkpoint(tmp_path)
    chunk = policy.act(_observation())
    assert chunk.actions.shape == (3, 7)
    assert chunk.probabilities is None
    policy.action_spec.check(chunk.actions)
    # what is committed changes nothing
    told = policy.act(_observation(np.full((2, 7), 0.01, np.float32)))
    np.testing.assert_array_equal(told.actions, chunk.actions)
    again = VlaPolicy.from_checkpoint(tmp_path).act(_observation())
    np.testing.assert_array_equal(again.actions, chunk.actions)


def test_a_small_batch_is_learnt_and_its_chunks_come_back_within_the_tokenizers_error(dataset):
    cfg = _config(dataset)
    torch.manual_seed(0)
    frames = open_datasets(cfg.data, 16, TABLETOP)
    learner = new_learner(cfg, [], frames, TABLETOP)
    batches, _ = build_batches(cfg, learner, frames)
    batch, model, fast = batches.at(0), learner.model, learner.contract.fast
    assert fast is not None
    objective = Objective(
        cfg=cfg.training.loss, end_id=learner.prompts.end_id, decoding=ActionDecoding.FAST
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(150):
        loss, _ = objective(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    engine = ActionEngine(model=model, fast=fast, end_id=learner.prompts.end_id)
    chunks, probabilities = engine.chunk(
        batch.images, batch.text_ids, batch.text_valid, batch.state
    )
    assert probabilities is None
    error = (chunks - batch.normalized.clamp(-1, 1)).square().mean(dim=(1, 2)).sqrt()
    assert float(error.max()) <= fast.error_bound + 1e-6
    assert float(chunks.std()) > 0.2


class Killed(BaseException):
    """Stands for a kill."""


def test_a_run_that_was_killed_goes_on_with_the_same_tokenizer_bit_for_bit(
    dataset, tmp_path, monkeypatch
):
    _run(_config(dataset), tmp_path / "whole")
    original, steps = torch.optim.AdamW.step, iter(range(100))

    def step_or_die(self, *args):
        if next(steps) == 1:  # after the checkpoint of step 1
            raise Killed
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step_or_die)
        with pytest.raises(Killed):
            _run(_config(dataset), tmp_path / "torn")
    with monkeypatch.context() as patch:
        patch.setattr("vla.training.assemble.train_fast", None)  # not trained again
        _run(_config(dataset, resume=True), tmp_path / "torn")
    whole, torn = (native.load(tmp_path / name) for name in ("whole", "torn"))
    assert whole.contract.to_dict()["fast"] == torn.contract.to_dict()["fast"]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, torn.model.state_dict()[name]), name
    rows = [read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("whole", "torn")]
    losses = [[row["train/action"] for row in r if "train/action" in row] for r in rows]
    assert losses[0] == losses[1]


def test_more_levels_than_tokens_are_refused_before_anything_is_trained(dataset, tmp_path):
    shape = replace(SHAPE, fast_vocab_size=16)
    with pytest.raises(ConfigError, match="raise it above that or lower scale"):
        _run(_config(dataset, backbone=shape), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
