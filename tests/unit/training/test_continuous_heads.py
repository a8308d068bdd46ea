"""Whole runs with heads that answer in numbers: trained, resumed, loaded and asked to act."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import make_episode, write_dataset

from policies.config import PolicyConfig
from policies.vla_policy import VlaPolicy
from vla.checkpoints import native
from vla.errors import ConfigError
from vla.inference.engine import ActionEngine
from vla.models.action_config import ActionDecoding
from vla.training.assemble import train_policy
from vla.training.config import (
    BackboneConfig,
    DataConfig,
    OptimConfig,
    Precision,
    RunConfig,
    TrainingConfig,
)
from vla.training.track import JsonlTracker, read_jsonl
from vla.types import Observation

HEADS = [ActionDecoding.L1, ActionDecoding.FLOW]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("data") / "demonstrations", [make_episode(k, 6) for k in range(8)]
    )


def _run(dataset: Path, directory: Path, decoding: ActionDecoding, steps: int = 4, **changes):
    cfg = RunConfig(
        data=DataConfig(roots=[str(dataset)], validation_fraction=0.2),
        backbone=BackboneConfig(
            decoding=decoding, image_size=16, width=32, depth=1, vision_width=32, vision_depth=1, chunk_length=3,
            text_vocab_size=270,
        ),
        training=TrainingConfig(
            steps=steps, batch_size=4, precision=Precision.FP32, num_threads=1, log_every=1, validate_every=2,
            checkpoint_every=2, validation_batches=1, optim=OptimConfig(learning_rate=3e-3, warmup_steps=1),
        ),
    )  # fmt: skip
    cfg = replace(cfg, **changes)
    tracker = JsonlTracker(directory / "metrics.jsonl", keep_rows=cfg.resume)
    try:
        return train_policy(cfg, directory, tracker, corpus=[])
    finally:
        tracker.close()


def _weights(directory: Path) -> dict[str, torch.Tensor]:
    return native.load(directory).model.state_dict()


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("decoding", HEADS)
def test_a_run_is_measured_in_physical_units_and_resumes_bit_for_bit(
    dataset, tmp_path, monkeypatch, decoding
):
    summary = _run(dataset, tmp_path / "whole", decoding)
    metrics = summary["metrics"]
    assert 0 < metrics["action_l1/dx"] < 0.08  # metres
    assert "token_accuracy" not in metrics
    original, steps = torch.optim.AdamW.step, iter(range(100))

    def step_or_die(self, *args):
        if next(steps) == 3:  # after the checkpoint of step 2
            raise Killed
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step_or_die)
        with pytest.raises(Killed):
            _run(dataset, tmp_path / "torn", decoding)
    _run(dataset, tmp_path / "torn", decoding, resume=True)
    torn = _weights(tmp_path / "torn")
    for name, tensor in _weights(tmp_path / "whole").items():
        assert torch.equal(tensor, torn[name]), name
    rows = [read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("whole", "torn")]
    losses = [[row["train/action"] for row in r if "train/action" in row] for r in rows]
    assert losses[0] == losses[1]


def _observation(committed: np.ndarray | None = None) -> Observation:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return Observation(
        images={"front": picture, "wrist": picture},
        state=np.zeros(7, np.float32),
        instruction="pick up cube 1",
        committed=committed,
    )


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory) -> dict[ActionDecoding, Path]:
    folders = {}
    for decoding in HEADS:
        folders[decoding] = tmp_path_factory.mktemp(decoding.value)
        _run(dataset, folders[decoding], decoding, steps=2)
    return folders


@pytest.mark.parametrize("decoding", HEADS)
def test_a_policy_of_numbers_acts_within_limits_without_probabilities(trained, decoding):
    policy = VlaPolicy.from_checkpoint(trained[decoding])
    chunk = policy.act(_observation())
    assert chunk.actions.shape == (3, 7)
    assert chunk.probabilities is None
    policy.action_spec.check(chunk.actions)
    policy.reset(seed=5)
    first = policy.act(_observation()).actions
    policy.reset(seed=5)
    np.testing.assert_array_equal(first, policy.act(_observation()).actions)
    policy.reset(seed=6)
    is_same = np.array_equal(first, policy.act(_observation()).actions)
    assert is_same == (decoding is ActionDecoding.L1)  # a flow draws


def test_a_flow_is_guided_to_begin_with_what_is_committed(trained):
    policy = VlaPolicy.from_checkpoint(trained[ActionDecoding.FLOW])
    spec = policy.action_spec
    errors = []
    for committed in (None, np.full((2, 7), [0.02, -0.02, 0.01, 0, 0, 0, 1], np.float32)):
        policy.reset(seed=0)
        actions = policy.act_batch([_observation(committed), _observation(committed)])[1].actions
        spec.check(actions)
        errors.append(np.abs(actions[:2, 6] - 1.0).mean())  # the gripper, whose range is known
    assert errors[1] < 0.5 * errors[0]


def test_fewer_steps_of_a_flow_are_a_setting_and_none_is_refused(trained):
    few = VlaPolicy.from_checkpoint(trained[ActionDecoding.FLOW], PolicyConfig(flow_steps=1))
    assert few.act(_observation()).actions.shape == (3, 7)
    with pytest.raises(ConfigError, match="flow_steps must be at least 1"):
        PolicyConfig(flow_steps=0)


def test_numbers_have_no_bins_to_predict(trained):
    engine = ActionEngine(model=native.load(trained[ActionDecoding.L1]).model)
    with pytest.raises(ConfigError, match=r"use ActionEngine\.chunk"):
        engine.predict(
            torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8),
            torch.ones(1, 4, dtype=torch.int64),
            torch.ones(1, 4, dtype=torch.bool),
            torch.zeros(1, 7),
        )
