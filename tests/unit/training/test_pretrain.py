"""Every stage of unimodal pretraining learns something, and goes on after a kill as if nothing had happened."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_pictures import scene_rows
from tokenizers import Tokenizer

from vla.checkpoints.folder import load_folder
from vla.data.crops import CropConfig
from vla.data.patch_labels import label_patches
from vla.data.scene_pictures import gather_pictures
from vla.errors import ConfigError
from vla.models.dual_encoder import DualEncoder
from vla.models.self_distiller import PrototypeHeadConfig
from vla.models.vision.vit import ViT
from vla.tokenizers.text import train_text_tokenizer
from vla.training.config import OptimConfig, Precision, TrainingConfig
from vla.training.contrastive import pair_lesson, tower_pixels
from vla.training.language import text_lesson
from vla.training.pretrain import Lesson, run_lesson
from vla.training.pretrain_config import (
    ContrastiveConfig,
    PretrainConfig,
    SelfDistillationConfig,
    Stage,
    TextStageConfig,
    TowerShape,
)
from vla.training.scene_sources import held_out_corpus, scene_corpus
from vla.training.self_distillation import tower_lesson
from vla.training.track import JsonlTracker, TrackerGroup, read_jsonl

ROWS = [*scene_rows(384), *scene_rows(32, first_seed=1_000_000)]
TRAIN, HELD_OUT = gather_pictures(ROWS, 32)
PATCHES = label_patches(ROWS, image_size=32, patch_size=8, max_pictures=32)


def tokenizer() -> Tokenizer:
    return train_text_tokenizer(scene_corpus(ROWS), 300)


def config(stage: Stage, steps: int = 4, **training: object) -> PretrainConfig:
    return PretrainConfig(
        stage=stage,
        image_size=32,
        tower=TowerShape(width=32, depth=1, patch_size=8),
        contrastive=ContrastiveConfig(
            text_width=32,
            text_depth=1,
            max_text_tokens=24,
            retrieval_pool=8,
            retrieval_queries=16,
        ),
        self_distillation=SelfDistillationConfig(
            head=PrototypeHeadConfig(num_prototypes=16, hidden_width=16, bottleneck_width=8),
            crops=CropConfig(num_local=1, local_size=16),
            resting_steps=2,
        ),
        text=TextStageConfig(max_tokens=32),
        training=replace(
            TrainingConfig(
                steps=steps,
                batch_size=8,
                precision=Precision.FP32,
                num_threads=1,
                optim=OptimConfig(learning_rate=2e-3, warmup_steps=2, ema_decay=0.9),
                log_every=1,
                validate_every=1000,
                checkpoint_every=2,
            ),
            **training,  # type: ignore[arg-type]
        ),
    )


def lesson(cfg: PretrainConfig) -> Lesson:
    match cfg.stage:
        case Stage.DINOV2:
            return tower_lesson(cfg, TRAIN, PATCHES)
        case Stage.TEXT:
            return text_lesson(cfg, scene_corpus(ROWS), held_out_corpus(ROWS), tokenizer())
        case _:
            return pair_lesson(cfg, TRAIN, HELD_OUT, tokenizer())


def run(cfg: PretrainConfig, directory: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    tracker = JsonlTracker(directory / "metrics.jsonl", keep_rows=cfg.resume)
    summary = run_lesson(lesson(cfg), cfg, directory, tracker)
    tracker.close()
    kind = {Stage.DINOV2: "tower", Stage.TEXT: "decoder"}.get(cfg.stage, "picture_text")
    return summary, load_folder(directory, kind=kind).tensors


@pytest.mark.parametrize("stage", [Stage.SIGLIP, Stage.CLIP, Stage.DINOV2, Stage.TEXT])
def test_a_run_cut_in_two_equals_one_in_one_piece_bit_for_bit(stage: Stage, tmp_path: Path):
    _, whole = run(config(stage), tmp_path / "whole")

    killed = lesson(config(stage))
    prefetch = killed.batches.prefetch

    def two_and_no_more(start: int, end: int) -> Iterator[Any]:
        yield from itertools.islice(prefetch(start, end), 2)
        raise KeyboardInterrupt

    killed.batches.prefetch = two_and_no_more  # type: ignore[method-assign]
    directory = tmp_path / "cut"
    tracker = JsonlTracker(directory / "metrics.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run_lesson(killed, config(stage), directory, tracker)
    tracker.close()
    summary, resumed = run(replace(config(stage), resume=True), directory)
    assert summary["steps"] == 4
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    rows = [row["step"] for row in read_jsonl(directory / "metrics.jsonl") if "train/loss" in row]
    assert rows == [1, 2, 3, 4]


def test_towers_find_the_caption_of_a_picture_better_than_chance(tmp_path: Path):
    rates = OptimConfig(learning_rate=3e-3, warmup_steps=10, ema_decay=0.9)
    cfg = config(Stage.CLIP, steps=80, batch_size=16, checkpoint_every=80, optim=rates)
    summary, _ = run(cfg, tmp_path)
    start = read_jsonl(tmp_path / "metrics.jsonl")[0]
    assert summary["metrics"]["image_to_text_r1"] > 3 / 8  # chance: 1 of 8
    assert summary["metrics"]["loss_nats"] < 0.6 * start["validation/loss_nats"]


def test_the_sigmoids_bias_starts_where_every_pair_has_the_chance_of_a_right_one():
    begun = lesson(config(Stage.SIGLIP))
    batch = begun.batches.at(0)  # type: ignore[attr-defined]
    model = begun.model
    assert isinstance(model, DualEncoder)
    pairs = model(tower_pixels(batch.pictures, model.config.vision), batch.ids)
    assert pairs.logits.mean().item() == pytest.approx(math.log(1 / 7), abs=1e-4)


def test_the_chunked_sigmoid_gives_the_same_loss_and_gradient():
    found = []
    for size in (None, 3):
        cfg = config(Stage.SIGLIP)
        cfg.contrastive.chunk_size = size
        begun = lesson(cfg)
        loss, _ = begun.objective(begun.model, begun.batches.at(0))  # type: ignore[attr-defined]
        loss.backward()
        found.append([loss.detach(), begun.model.get_parameter("vision.position_table").grad])
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(whole, pieces, atol=1e-6, rtol=1e-4)


def test_the_two_arms_differ_in_temperature_and_bias_alone():
    sigmoid, softmax = (lesson(config(stage)).model for stage in (Stage.SIGLIP, Stage.CLIP))
    ours, theirs = sigmoid.state_dict(), softmax.state_dict()
    assert ours.keys() - theirs.keys() == {"logit_bias"}
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]) == (name != "log_temperature"), name


def test_a_decoder_knows_more_of_held_out_texts_after_training(tmp_path: Path):
    summary, _ = run(config(Stage.TEXT, steps=60, checkpoint_every=60), tmp_path)
    start = read_jsonl(tmp_path / "metrics.jsonl")[0]["validation/perplexity"]
    assert summary["metrics"]["perplexity"] < 0.2 * start


def test_the_teacher_follows_the_student_and_is_what_is_kept(tmp_path: Path):
    cfg = config(Stage.DINOV2, optim=OptimConfig(learning_rate=2e-3, warmup_steps=1, ema_decay=0))
    taught = lesson(cfg)
    model = taught.model
    before = {name: value.clone() for name, value in model.named_parameters()}
    run_lesson(taught, cfg, tmp_path, TrackerGroup([]))
    name = "tower.blocks.0.mlp.up.weight"
    student, teacher = (model.get_parameter(f"{who}.{name}") for who in ("student", "teacher"))
    moved = (student - before[f"student.{name}"]).norm()
    assert 0 < (teacher - before[f"teacher.{name}"]).norm() < 0.5 * moved
    kept = load_folder(tmp_path, kind="tower").tensors
    assert torch.equal(kept[name.removeprefix("tower.")], teacher)
    assert "mask_token" not in kept
    tower = ViT(taught.model.student.tower.config, 32)  # type: ignore[union-attr]
    assert kept.keys() == tower.state_dict().keys() - {"mask_token"}


def test_prototypes_rest_at_the_start(tmp_path: Path):
    cfg = config(Stage.DINOV2, steps=2, optim=OptimConfig(weight_decay=0.0, ema_decay=0))
    taught = lesson(cfg)
    before = taught.model.get_parameter("student.class_head.prototypes").clone()
    run_lesson(taught, cfg, tmp_path, TrackerGroup([]))
    assert torch.equal(before, taught.model.get_parameter("student.class_head.prototypes"))


def test_a_collapse_is_one_clear_error(tmp_path: Path):
    cfg = config(Stage.DINOV2)
    cfg.self_distillation.collapse_grace_steps = 1
    taught = lesson(cfg)
    with torch.no_grad():  # every picture becomes the same class token
        taught.model.get_parameter("student.tower.final_norm.weight").zero_()
        taught.model.get_parameter("student.tower.final_norm.bias").fill_(1.0)
    with pytest.raises(ConfigError, match=r"collapsed at step 1: .* start anew with a lower"):
        run_lesson(taught, cfg, tmp_path, TrackerGroup([]))


def test_a_random_tower_is_measured_beside_the_trained_one():
    cfg = config(Stage.DINOV2)
    metrics = lesson(cfg).validate(lesson(cfg).model)
    assert metrics["random_color_accuracy"] > metrics["color_majority"]
    assert np.isfinite(list(metrics.values())).all()
