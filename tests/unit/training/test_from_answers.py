"""Policies that begin as models that answer, through the verb itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import make_episode, write_dataset
from fake_scenes import fake_scenes
from tiny_answerable import tiny_answerable

from policies.vla_policy import VlaPolicy
from vla.checkpoints import native
from vla.checkpoints.answering import Answerable
from vla.checkpoints.folder import save_folder
from vla.cli import train
from vla.models.action_config import ActionDecoding
from vla.models.vision.position_tables import resize_position_table
from vla.training.config import (
    BackboneConfig,
    DataConfig,
    Part,
    Precision,
    RunConfig,
    TrainingConfig,
)
from vla.training.multimodal import described
from vla.types import Observation


@pytest.fixture(scope="module")
def answering() -> Answerable:
    return tiny_answerable(fake_scenes(4, size=16), has_codec=True)


@pytest.fixture(scope="module")
def folders(answering, tmp_path_factory) -> tuple[Path, Path]:
    """A "vlm" checkpoint, and a dataset of pictures twice as large as it has seen."""
    root, student = tmp_path_factory.mktemp("data"), described(answering)
    save_folder(
        root / "vlm",
        {
            "kind": student.kind,
            "model": {"family": student.family, "config": student.config},
            **student.more,
        },
        student.tensors,
        tokenizer=student.tokenizer,
    )
    episodes = [make_episode(k, 6, 32) for k in range(6)]
    return root / "vlm", write_dataset(root / "demonstrations", episodes, size=32)


def _run(
    folders: tuple[Path, Path], directory: Path, **backbone: object
) -> native.LoadedCheckpoint:
    """One step with everything frozen but the heads."""
    cfg = RunConfig(
        data=DataConfig(roots=[str(folders[1])], validation_fraction=0.2),
        backbone=replace(BackboneConfig(image_size=32, chunk_length=2), **backbone),
        training=TrainingConfig(
            steps=1, batch_size=4, precision=Precision.FP32, num_threads=1, validation_batches=1,
            frozen_parts=list(Part),
        ),
        init_from=str(folders[0]),
    )  # fmt: skip
    summary = train.run(cfg, directory)
    assert summary["step"] == 1
    return native.load(directory)


@pytest.mark.parametrize("decoding", [ActionDecoding.PARALLEL, ActionDecoding.FAST])
def test_a_policy_takes_over_weights_and_tokenizer_and_stretches_places(
    answering, folders, tmp_path, decoding
):
    loaded = _run(folders, tmp_path, decoding=decoding)
    assert loaded.tokenizer.to_str() == answering.tokenizer.to_str()
    backbone, before = loaded.model.backbone, answering.backbone.state_dict()
    table = "vision.position_table"
    for name, weight in backbone.state_dict().items():
        if name == table:
            resampling = answering.backbone.config.tower.resampling
            expected = resize_position_table(before[name], 4, resampling=resampling)
        else:
            expected = before[name]
        rows = len(expected) if expected.dim() else None
        torch.testing.assert_close(weight[:rows] if rows else weight, expected, msg=name)
    is_fast = decoding is ActionDecoding.FAST
    num_new = backbone.config.decoder.vocab_size - answering.backbone.config.decoder.vocab_size
    assert num_new == (1024 if is_fast else 0)
    picture = np.zeros((32, 32, 3), np.uint8)
    policy = VlaPolicy.from_checkpoint(tmp_path)
    chunk = policy.act(
        Observation(
            images={"front": picture, "wrist": picture},
            state=np.zeros(7, np.float32),
            instruction="pick up cube 1",
        )
    )
    policy.action_spec.check(chunk.actions)


def test_without_its_weights_only_shape_and_tokenizer_are_taken(answering, folders, tmp_path):
    loaded = _run(folders, tmp_path, keeps_weights=False)
    assert loaded.tokenizer.to_str() == answering.tokenizer.to_str()
    before, after = answering.backbone.state_dict(), loaded.model.backbone.state_dict()
    assert before.keys() == after.keys()
    name = "decoder.token_embedding.weight"
    assert after[name].shape == before[name].shape
    similarity = torch.nn.functional.cosine_similarity(
        after[name].flatten(), before[name].flatten(), dim=0
    )
    assert abs(float(similarity)) < 0.1
