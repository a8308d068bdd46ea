"""Stage dinov2: a tower that learns from pictures alone, taught by its own moving average (Oquab et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla.data.crops import CropBatch, CropBatches
from vla.data.patch_labels import LabelledPatches, label_patches
from vla.data.scene_pictures import ScenePictures, gather_pictures
from vla.errors import ConfigError
from vla.losses.self_distillation import (
    assignment_entropy,
    centred,
    dino_loss,
    feature_spread,
    ibot_loss,
    koleo_loss,
    moved_centre,
    sinkhorn_knopp,
)
from vla.models.config_dict import config_to_dict
from vla.models.initialisation import initialise
from vla.models.self_distiller import DistilledLogits, SelfDistiller
from vla.models.vision import presets
from vla.models.vision.vit import ViT
from vla.training.contrastive import tower_pixels
from vla.training.patch_probe import probe
from vla.training.pretrain import Described, Lesson, run_lesson
from vla.training.pretrain_config import PretrainConfig, SelfDistillationConfig
from vla.training.scene_sources import open_rows
from vla.training.track import Metrics, Tracker


def pretrain_tower(cfg: PretrainConfig, directory: Path, tracker: Tracker) -> dict[str, Any]:
    """Trains the tower, and returns the run's summary; checkpoints hold the teacher's tower and are of kind "tower".

    Raises:
        DatasetError: scenes are missing.
        ConfigError: a setting is out of range, or all pictures have come to look the same to the tower.
    """
    rows = open_rows(cfg)
    train, _ = gather_pictures(rows, cfg.image_size)
    patches = label_patches(
        rows,
        image_size=cfg.image_size,
        patch_size=cfg.tower.patch_size,
        max_pictures=cfg.self_distillation.probe_pictures,
    )
    return run_lesson(tower_lesson(cfg, train, patches), cfg, directory, tracker)


def tower_lesson(
    cfg: PretrainConfig, train: ScenePictures, patches: LabelledPatches
) -> Lesson[CropBatch]:
    """Returns the stage, ready to run: the model new, from the seed of `cfg.training`."""
    torch.manual_seed(cfg.training.seed)
    shape = presets.tiny_dinov2(cfg.tower.width, cfg.tower.depth, cfg.tower.patch_size)
    options = cfg.self_distillation
    model = SelfDistiller(replace(shape, has_mask_token=True), cfg.image_size, options.head)
    untrained = ViT(shape, cfg.image_size)
    initialise(untrained)
    baseline = {f"random_{name}": value for name, value in probe(untrained, patches).items()}
    compared = {name: baseline[name] for name in ("random_color_accuracy", "random_shape_accuracy")}

    def measure(_: Any) -> Metrics:
        return {**probe(model.teacher.tower, patches), **compared}

    def describe() -> Described:
        tensors = model.teacher.tower.state_dict()
        del tensors["mask_token"]
        return Described(
            kind="tower",
            family="vit",
            config={"tower": config_to_dict(shape), "image_size": cfg.image_size},
            tensors=tensors,
        )

    return Lesson(
        model=model,
        objective=DistillationObjective(model=model, cfg=options, steps=cfg.training.steps),
        batches=CropBatches(
            train.pictures,
            patch_size=cfg.tower.patch_size,
            batch_size=cfg.training.batch_size,
            cfg=options.crops,
            seed=cfg.training.seed,
        ),
        validate=measure,
        describe=describe,
    )


@dataclass(kw_only=True)
class DistillationObjective:
    """DINO on class tokens, iBOT on hidden patches, KoLeo between pictures.

    The teacher moves at the start of a step, towards the student that the last step left; so all that a step changes
    is in the parameters, and a run can stop and go on anywhere.
    """

    model: SelfDistiller
    cfg: SelfDistillationConfig
    steps: int

    def __call__(
        self, forward: Callable[..., Any], batch: CropBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum, its terms, and how spread out features and assignments are.

        Raises:
            ConfigError: the features have collapsed.
        """
        cfg, config = self.cfg, self.model.student.tower.config
        if batch.step:
            self.model.follow(self.momentum(batch.step))
        logits: DistilledLogits = forward(
            tower_pixels(batch.global_crops, config),
            tower_pixels(batch.local_crops, config),
            batch.is_masked,
            rests=batch.step < cfg.resting_steps,
        )
        with torch.autocast(logits.classes.device.type, enabled=False):
            return self._losses(logits, batch)

    def momentum(self, step: int) -> float:
        """Returns how much of the teacher stays at a step."""
        share = min(1.0, step / self.steps)
        return 1 - (1 - self.cfg.teacher_momentum) * (1 + math.cos(math.pi * share)) / 2

    def teacher_temperature(self, step: int) -> float:
        """Returns the temperature of the teacher's probabilities at a step."""
        first, last = self.cfg.teacher_temperature
        return first + (last - first) * min(1.0, step / max(1, self.cfg.teacher_warmup_steps))

    def _losses(
        self, logits: DistilledLogits, batch: CropBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        cfg, model = self.cfg, self.model
        num_global = cfg.crops.num_global
        batch_size = len(batch.global_crops) // num_global
        temperature = self.teacher_temperature(batch.step)
        classes = self._assigned(logits.teacher_classes, model.class_centre, temperature)
        dino = dino_loss(
            logits.classes.unflatten(0, (-1, batch_size)),
            classes.unflatten(0, (num_global, batch_size)),
            cfg.student_temperature,
        )
        ibot = logits.patches.new_zeros(())
        if len(logits.patches):
            num_hidden = batch.is_masked.sum(dim=1, keepdim=True).clamp(min=1)
            weights = (1.0 / num_hidden).expand(batch.is_masked.shape)[batch.is_masked]
            patches = self._assigned(logits.teacher_patches, model.patch_centre, temperature)
            ibot = ibot_loss(
                logits.patches, patches, weights, len(batch.is_masked), cfg.student_temperature
            )
        crops = logits.summary.float().unflatten(0, (num_global, batch_size))
        koleo = torch.stack([koleo_loss(crop) for crop in crops]).sum()
        spread = feature_spread(crops[0].detach())
        self._check(float(spread), batch.step)
        loss = dino + cfg.patch_weight * ibot + cfg.spread_weight * koleo
        entropy = assignment_entropy(classes)
        terms = {"dino": dino, "ibot": ibot, "koleo": koleo, "spread": spread, "entropy": entropy}
        return loss, terms

    @torch.no_grad()
    def _assigned(self, logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
        if self.cfg.uses_sinkhorn:
            return sinkhorn_knopp(logits, temperature)
        assigned = centred(logits, centre, temperature)
        centre.copy_(moved_centre(centre, logits))
        return assigned

    def _check(self, spread: float, step: int) -> None:
        cfg = self.cfg
        if step >= cfg.collapse_grace_steps and not spread >= cfg.least_spread:
            raise ConfigError(
                f"the tower has collapsed at step {step}: class tokens of different pictures spread by {spread:.4f} "
                f"(least_spread {cfg.least_spread:g}; 1 is all over the sphere); start anew with a lower "
                "training.optim.learning_rate, a higher self_distillation.teacher_momentum or a larger spread_weight"
            )
