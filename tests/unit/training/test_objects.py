"""Stage objects: a tower learns what every patch shows, and fits into a backbone."""

import math
from dataclasses import replace

import torch
from fake_scenes import fake_scenes

from vla.checkpoints.parts import load_parts
from vla.data.patch_targets import UNKNOWN, PatchBatches, gather_patch_targets
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.paligemma_config import tiny_paligemma
from vla.models.vision import presets
from vla.training.config import OptimConfig, TrainingConfig
from vla.training.objects import ObjectReader, object_objective, objects_lesson, side_nats
from vla.training.pretrain import run_lesson
from vla.training.pretrain_config import PretrainConfig, Stage, TowerShape

ROWS = [*fake_scenes(8, size=16), *fake_scenes(4, first_seed=1_000_000, size=16)]
TARGETS = gather_patch_targets(ROWS, image_size=16, patch_size=8)


class Silent:
    def log(self, metrics, step):
        pass

    def close(self):
        pass


def _config(steps):
    return PretrainConfig(
        stage=Stage.OBJECTS,
        image_size=16,
        tower=TowerShape(width=32, depth=1, patch_size=8),
        training=TrainingConfig(
            steps=steps,
            batch_size=8,
            validate_every=10_000,
            validation_batches=1,
            num_threads=1,
            optim=OptimConfig(learning_rate=3e-3, warmup_steps=5, ema_decay=0.0, weight_decay=0.0),
        ),
    )


def test_pictures_are_learnt_by_heart_name_and_box_and_the_tower_fits_a_paligemma(tmp_path):
    cfg = _config(150)
    train, _, words = TARGETS
    lesson = objects_lesson(cfg, train, train, words)  # measured on what it learns from
    done = run_lesson(lesson, cfg, tmp_path, Silent())
    assert done["metrics"]["object_accuracy"] > 0.9
    assert done["metrics"]["box_iou"] > 0.7
    shape = replace(tiny_paligemma(512), image_size=16, tower=presets.tiny_siglip(32, 1, 8))
    backbone = PaliGemma(shape)
    load_parts(backbone, vision=[tmp_path])
    assert isinstance(lesson.model, ObjectReader)
    for name, value in lesson.model.tower.state_dict().items():
        assert torch.equal(backbone.vision.state_dict()[name], value), name


def test_patches_that_are_not_known_teach_nothing():
    train, _, words = TARGETS
    cfg = _config(1)
    model = objects_lesson(cfg, train, train, words).model
    batch = PatchBatches(train, batch_size=8).at(0)
    _, before = object_objective(model, batch)
    names, sides = model(batch.pictures)
    hidden = batch.names.clone()
    hidden[0] = UNKNOWN
    _, after = object_objective(lambda _: (names, sides), replace(batch, names=hidden))
    kept = (batch.names != UNKNOWN) & (hidden != UNKNOWN)
    by_hand = torch.nn.functional.cross_entropy(names[kept], batch.names[kept])
    torch.testing.assert_close(after["name"], by_hand)
    assert not torch.equal(before["name"], after["name"])


def test_a_side_that_is_one_pixel_off_costs_less_than_one_that_is_ten_off():
    boxes = torch.full((1, 4), 20 / 95)
    near, far, right = (torch.zeros(1, 4, 96) for _ in range(3))
    right[..., 20], near[..., 21], far[..., 30] = 8.0, 8.0, 8.0
    assert side_nats(right, boxes) < side_nats(near, boxes) < side_nats(far, boxes)
    even = side_nats(torch.zeros(1, 4, 96), boxes)
    torch.testing.assert_close(even, torch.tensor(math.log(96)))


def test_a_batch_without_objects_has_no_loss_for_sides():
    assert side_nats(torch.zeros(0, 4, 96), torch.zeros(0, 4)) == 0
