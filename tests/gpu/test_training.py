"""Training on a CUDA device."""

from pathlib import Path

import pytest
import torch
from fake_data import make_episode, write_dataset

from vla.checkpoints import native
from vla.training.assemble import train_policy
from vla.training.config import BackboneConfig, DataConfig, Precision, RunConfig, TrainingConfig
from vla.training.track import JsonlTracker, read_jsonl


@pytest.mark.gpu
def test_a_run_on_cuda_learns_what_a_run_on_the_cpu_learns(tmp_path: Path):
    root = write_dataset(tmp_path / "data", [make_episode(k, 6) for k in range(10)])
    losses = {}
    for device in ("cpu", "cuda"):
        cfg = RunConfig(
            data=DataConfig(roots=[str(root)], validation_fraction=0.2),
            backbone=BackboneConfig(
                image_size=16, width=32, depth=1, vision_width=32, vision_depth=1
            ),
            training=TrainingConfig(
                steps=20, batch_size=4, precision=Precision.FP32, device=device, log_every=1
            ),
        )
        tracker = JsonlTracker(tmp_path / device / "metrics.jsonl")
        train_policy(cfg, tmp_path / device, tracker, corpus=[])
        tracker.close()
        rows = read_jsonl(tmp_path / device / "metrics.jsonl")
        losses[device] = torch.tensor([row["train/loss"] for row in rows if "train/loss" in row])
    assert torch.allclose(losses["cpu"], losses["cuda"], rtol=1e-3)
    assert next(native.load(tmp_path / "cuda").model.parameters()).device.type == "cpu"
