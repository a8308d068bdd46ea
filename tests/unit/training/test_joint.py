"""Words and actions learnt together, by a tiny model that has learnt to answer before."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_data import make_episode, write_dataset
from fake_scenes import fake_scene, fake_scenes

from vla.data.collate import TrainBatch
from vla.data.joint_batches import JointBatches, split_rows
from vla.data.scenes_write import SceneJob, write_scenes
from vla.errors import ConfigError, DatasetError
from vla.models.action_config import ActionConfig
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.paligemma_config import tiny_paligemma
from vla.models.vision import presets
from vla.tokenizers.prompt_answer import PromptFamily
from vla.tokenizers.scene_vocabulary import train_scene_tokenizer
from vla.training.assemble import train_policy
from vla.training.config import (
    BackboneConfig,
    DataConfig,
    LossConfig,
    OptimConfig,
    Precision,
    RunConfig,
    TrainingConfig,
)
from vla.training.joint import JointObjective, Words, open_words
from vla.training.loop import train
from vla.training.objective import Objective
from vla.training.scene_sources import scene_corpus
from vla.training.track import JsonlTracker, read_jsonl

SIZE, BATCH = 32, 8
TRAIN = fake_scenes(12)
HELD_OUT = [replace(row, scene_seed=row.scene_seed + 1_000_000) for row in TRAIN]  # overfitted
TOKENIZER = train_scene_tokenizer(scene_corpus(TRAIN))


def _model() -> VisionLanguageAction:
    torch.manual_seed(0)
    shape = tiny_paligemma(TOKENIZER.get_vocab_size())
    decoder = replace(shape.decoder, width=32, depth=1, num_heads=2, head_dim=16, mlp_width=64)
    backbone = PaliGemma(
        replace(
            shape,
            image_size=SIZE,
            tower=presets.tiny_siglip(32, 1, 8),
            decoder=decoder,
            image_id=TOKENIZER.token_to_id("<image>"),
            pictures_apart=True,
        )
    )
    acts = ActionConfig(
        text_vocab_size=TOKENIZER.get_vocab_size(), chunk_length=2, state_width=0, grounding=False
    )
    return VisionLanguageAction(backbone, acts)


class _Robot:
    """Frames whose right bin is written in how bright they are."""

    num_samples, len_epoch = 400, 50

    def __init__(self, batch_size: int) -> None:
        self._size = batch_size

    def at(self, step: int) -> TrainBatch:
        generator = torch.Generator().manual_seed(step)
        bins = torch.randint(0, 4, (self._size, 1, 1), generator=generator).expand(-1, 2, 7) * 60
        images = (bins[:, :1, :1, None, None] * torch.ones(1, 1, 3, SIZE, SIZE)).to(torch.uint8)
        ids = [TOKENIZER.token_to_id("<image>")] * 16 + [1, 70, 71]
        ones = torch.ones(self._size, len(ids), dtype=torch.bool)
        actions = bins / 127.5 - 1.0
        return TrainBatch(
            images=images,
            text_ids=torch.tensor(ids).expand(self._size, -1),
            text_valid=ones,
            state=torch.zeros(self._size, 7),
            action_bins=bins,
            action_valid=ones[:, :2],
            actions=actions,
            normalized=actions,
            grounding=None,
        )


def _words(model: VisionLanguageAction, num_rows: int) -> Words:
    cfg = DataConfig(questions_per_picture=3)
    rows = [*TRAIN, *HELD_OUT]
    return open_words(rows, model.backbone, TOKENIZER, cfg, num_rows=num_rows, seed=0)


def _objective(words: Words, text_weight: float = 1.0) -> JointObjective:
    return JointObjective(
        robot=Objective(cfg=LossConfig(sigma_bins=0.0), end_id=2),
        words=words,
        text_weight=text_weight,
    )


def _learn(model: VisionLanguageAction, steps: int, fraction: float, text_weight: float = 1.0):
    """Plain Adam on batches of which a fraction are scenes; 1 stands for scenes alone."""
    num_robot, num_scenes = (BATCH, BATCH) if fraction == 1 else split_rows(BATCH, fraction)
    words = _words(model, num_scenes)
    objective, robot = _objective(words, text_weight), _Robot(num_robot)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        if fraction == 1:
            loss, _ = words.objective(words.answering, words.train.at(step))
        elif fraction == 0:
            loss, _ = objective.robot(model, robot.at(step))
        else:
            loss, _ = objective(model, JointBatches(robot, words.train).at(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _text_loss(model: VisionLanguageAction) -> float:
    return _words(model, 0).measure(2)["text_loss"]


def _action_loss(model: VisionLanguageAction) -> float:
    with torch.no_grad():
        return float(
            Objective(cfg=LossConfig(sigma_bins=0.0), end_id=2)(model, _Robot(16).at(999))[0]
        )


def test_answers_are_forgotten_while_actions_are_learnt_unless_scenes_are_mixed_in():
    model = _model()
    before = _text_loss(model)
    _learn(model, 60, 1)
    knows, acts = _text_loss(model), _action_loss(model)
    assert knows < 0.6 * before
    alone, mixed = model, copy.deepcopy(model)
    _learn(alone, 20, 0)
    _learn(mixed, 20, 0.5)
    assert _action_loss(alone) < 0.6 * acts
    assert _action_loss(mixed) < 0.6 * acts
    assert _text_loss(alone) > knows + 0.3
    assert _text_loss(mixed) < knows


def _gradients(text_weight: float) -> dict[str, float]:
    model = _model()
    words = _words(model, 4)
    batch = JointBatches(_Robot(4), words.train).at(0)
    loss, terms = _objective(words, text_weight)(model, batch)
    loss.backward()
    assert set(terms) == {"action", "text"}
    return {
        name: 0.0 if p.grad is None else float(p.grad.norm())
        for name, p in model.named_parameters()
    }


def test_each_term_reaches_what_it_should():
    actions, both = _gradients(0.0), _gradients(1.0)
    shared = [name for name in both if name.startswith("backbone.vision.blocks")]
    assert shared
    for name in shared:
        assert actions[name] > 0
        assert both[name] != actions[name]
    heads = [name for name in both if name.startswith("action_head")]
    for name in heads:
        assert both[name] == pytest.approx(actions[name])  # words pass it by


def test_the_loss_is_the_weighted_sum_of_its_terms():
    model = _model()
    words = _words(model, 4)
    batch = JointBatches(_Robot(4), words.train).at(0)
    loss, terms = _objective(words, 0.25)(model, batch)
    torch.testing.assert_close(loss, terms["action"] + 0.25 * terms["text"])
    alone, _ = words.objective(words.answering, batch.scenes)
    torch.testing.assert_close(terms["text"], alone)


def test_scenes_that_are_only_measured_need_none_to_train_on():
    model = _model()
    words = open_words(HELD_OUT, model.backbone, TOKENIZER, DataConfig(), num_rows=0, seed=0)
    assert words.train is None
    assert set(words.measure(1)) == {"text_loss", "text_token_accuracy"}
    with pytest.raises(DatasetError, match="below 1,000,000"):
        open_words(HELD_OUT, model.backbone, TOKENIZER, DataConfig(), num_rows=4, seed=0)


def _run(directory: Path, resumed: dict | None = None, stop: int | None = None) -> dict:
    """Six steps of joint training in the real loop; what it saved last, by name."""
    model = _model()
    words = _words(model, 4)
    batches = JointBatches(_Robot(4), words.train)
    kept: dict = {}

    def save(_, state, done):
        kept.update(state=state, done=replace(done), weights=copy.deepcopy(model.state_dict()))

    cfg = TrainingConfig(
        steps=6, batch_size=BATCH, precision=Precision.FP32, num_threads=1, log_every=1, validate_every=2,
        checkpoint_every=2, optim=OptimConfig(learning_rate=3e-3, warmup_steps=1, ema_decay=0.5),
    )  # fmt: skip
    if stop is not None:
        whole = batches.prefetch
        batches.prefetch = lambda start, end, depth=3: whole(start, stop)
    tracker = JsonlTracker(directory / "metrics.jsonl")
    train(
        model, _objective(words), batches, cfg, validate=lambda _: words.measure(1), tracker=tracker,
        save=save, resume=resumed and (resumed["state"], resumed["done"]),
    )  # fmt: skip
    tracker.close()
    return kept


def test_a_resumed_run_ends_as_one_in_one_piece_and_logs_both_terms(tmp_path):
    whole = _run(tmp_path / "whole")
    torn = _run(tmp_path / "torn", stop=4)
    assert torn["done"].step == 4
    again = _run(tmp_path / "again", resumed=torn)
    assert again["done"].step == 6
    for name, tensor in whole["weights"].items():
        assert torch.equal(tensor, again["weights"][name]), name
    rows = read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    trained = [row for row in rows if "train/loss" in row]
    assert len(trained) == 6
    assert all({"train/action", "train/text"} <= row.keys() for row in trained)
    assert any("validation/text_loss" in row for row in rows)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> tuple[str, list[str]]:
    """A dataset of demonstrations, and scenes to train on and held out."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "demonstrations", [make_episode(k, 6) for k in range(6)])
    for name, seed in (("train", 0), ("held_out", 1_000_000)):
        job = SceneJob(
            make_draw=lambda: fake_scene, root=root / name, num_rows=6, first_seed=seed, identity={}
        )
        write_scenes(job, num_workers=0)
    return str(root / "demonstrations"), [str(root / "train"), str(root / "held_out")]


def _run_policy(on_disk, directory: Path, family: PromptFamily, **data) -> tuple[dict, list[dict]]:
    cfg = RunConfig(
        data=DataConfig(roots=[on_disk[0]], scenes=on_disk[1], validation_fraction=0.2, **data),
        backbone=BackboneConfig(
            family=family, image_size=16, patch_size=8, width=32, depth=1, vision_width=32, vision_depth=1,
            chunk_length=2,
        ),
        training=TrainingConfig(
            steps=2, batch_size=4, precision=Precision.FP32, num_threads=1, log_every=1, validate_every=2,
            checkpoint_every=2, validation_batches=1,
        ),
    )  # fmt: skip
    tracker = JsonlTracker(directory / "metrics.jsonl")
    summary = train_policy(cfg, directory, tracker, corpus=[])
    tracker.close()
    return summary, read_jsonl(directory / "metrics.jsonl")


@pytest.mark.parametrize("family", [PromptFamily.PRISMATIC, PromptFamily.PALIGEMMA])
def test_a_run_with_scenes_trains_and_measures_words_and_actions(on_disk, tmp_path, family):
    summary, rows = _run_policy(on_disk, tmp_path, family, scene_fraction=0.5)
    assert {"text_loss", "text_token_accuracy", "token_accuracy"} <= summary["metrics"].keys()
    assert all("train/text" in row for row in rows if "train/loss" in row)


def test_scenes_with_a_fraction_of_zero_are_measured_alone(on_disk, tmp_path):
    summary, rows = _run_policy(on_disk, tmp_path, PromptFamily.PALIGEMMA)
    assert "text_loss" in summary["metrics"]
    assert not any("train/text" in row for row in rows)


def test_a_share_of_scenes_without_scenes_is_refused(on_disk, tmp_path):
    with pytest.raises(ConfigError, match="but there are no scenes"):
        _run_policy((on_disk[0], []), tmp_path, PromptFamily.PALIGEMMA, scene_fraction=0.5)
