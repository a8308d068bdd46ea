"""Stage objects: a tower that says of every patch which object it shows, and where the whole of that object lies.

What a tower knows of a picture as a whole (stages siglip and clip) is not where things are. Here every patch is a
label: the name of the object it shows, and the four sides of its box, each as one of as many classes as the picture has
pixels, with a Gaussian over the neighbours for a target. So the sides stand in the features in a form that one linear
map reads, which is what a connector is. The two maps that are trained with the tower are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vla.data.patch_targets import (
    NOTHING,
    UNKNOWN,
    PatchBatch,
    PatchBatches,
    PatchTargets,
    gather_patch_targets,
)
from vla.models.config_dict import config_to_dict
from vla.models.initialisation import initialise
from vla.models.vision import presets
from vla.models.vision.vit import ViT
from vla.models.vision.vit_config import ViTConfig
from vla.training.contrastive import tower_pixels
from vla.training.pretrain import Described, Lesson, run_lesson
from vla.training.pretrain_config import PretrainConfig
from vla.training.scene_sources import open_rows
from vla.training.track import Metrics, Tracker

SIGMA_BINS = 1.0  # of the Gaussian target of a side, in pixels
BOX_WEIGHT = 1.0  # of a side, against the name


class ObjectReader(nn.Module):
    """A tower and two linear maps that read its patches: B pictures, P patches, K names, S places along a side."""

    def __init__(self, config: ViTConfig, image_size: int, num_names: int) -> None:
        super().__init__()
        self.tower = ViT(config, image_size)
        self.name = nn.Linear(config.width, 1 + num_names)
        self.sides = nn.Linear(config.width, 4 * image_size)
        initialise(self)

    def forward(
        self, pictures: UInt8[Tensor, "batch 3 rows columns"]
    ) -> tuple[Float[Tensor, "batch patches names"], Float[Tensor, "batch patches 4 places"]]:
        """Returns the logits of names, the first being NOTHING, and of the four sides."""
        features = self.tower(tower_pixels(pictures, self.tower.config))
        return self.name(features), self.sides(features).unflatten(-1, (4, -1))


def pretrain_objects(cfg: PretrainConfig, directory: Path, tracker: Tracker) -> dict[str, Any]:
    """Trains the tower, and returns the run's summary; checkpoints are of kind "tower".

    Raises:
        DatasetError: scenes are missing.
    """
    train, held_out, words = gather_patch_targets(
        open_rows(cfg), image_size=cfg.image_size, patch_size=cfg.tower.patch_size
    )
    lesson = objects_lesson(cfg, train, held_out, words)
    return run_lesson(lesson, cfg, directory, tracker)


def objects_lesson(
    cfg: PretrainConfig, train: PatchTargets, held_out: PatchTargets, words: list[str]
) -> Lesson[PatchBatch]:
    """Returns the stage, ready to run: the model new, from the seed of `cfg.training`."""
    torch.manual_seed(cfg.training.seed)
    shape = presets.tiny_siglip(cfg.tower.width, cfg.tower.depth, cfg.tower.patch_size)
    model = ObjectReader(shape, cfg.image_size, len(words))
    size, seed = cfg.training.batch_size, cfg.training.seed
    measured = PatchBatches(held_out, batch_size=size, seed=seed)
    num_measured = min(cfg.training.validation_batches, measured.len_epoch)

    def describe() -> Described:
        return Described(
            kind="tower",
            family="vit",
            config={"tower": config_to_dict(shape), "image_size": cfg.image_size},
            tensors=model.tower.state_dict(),
        )

    return Lesson(
        model=model,
        objective=object_objective,
        batches=PatchBatches(train, batch_size=size, seed=seed),
        validate=lambda _: measure_patches(model, [measured.at(k) for k in range(num_measured)]),
        describe=describe,
    )


def object_objective(
    forward: Callable[..., Any], batch: PatchBatch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the sum of the terms `name` and `side`, and the terms, in nats."""
    names, sides = forward(batch.pictures)
    shows_object = batch.names > NOTHING
    terms = {
        "name": F.cross_entropy(
            names.float().flatten(0, 1), batch.names.flatten(), ignore_index=UNKNOWN
        ),
        "side": side_nats(sides[shows_object], batch.boxes[shows_object]),
    }
    return terms["name"] + BOX_WEIGHT * terms["side"], terms


def side_nats(
    logits: Float[Tensor, "patches 4 places"], boxes: Float[Tensor, "patches 4"]
) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy of the sides against Gaussians around the true ones; 0 without any patch."""
    places = _centres(logits.shape[-1], logits.device)
    distance = (places - boxes[..., None]) * logits.shape[-1] / SIGMA_BINS
    targets = (-0.5 * distance.square()).softmax(dim=-1)
    nats = -(targets * logits.float().log_softmax(dim=-1)).sum(dim=-1)
    return nats.sum() / max(1, nats.numel())


@torch.no_grad()
def measure_patches(model: ObjectReader, batches: list[PatchBatch]) -> Metrics:
    """Returns, over held-out patches, the share of right names, among those that show an object too, and mean IoU."""
    model.eval()
    device = next(model.parameters()).device
    right, objects, overlaps = [], [], []
    for batch in batches:
        batch = batch.to(device)
        names, sides = model(batch.pictures)
        is_right = names.argmax(dim=-1) == batch.names
        right.append(is_right[batch.names != UNKNOWN])
        objects.append(is_right[batch.names > NOTHING])
        chosen = batch.names > NOTHING
        overlaps.append(_overlap(_read(sides[chosen]), batch.boxes[chosen]))
    return {
        "name_accuracy": float(torch.cat(right).float().mean()),
        "object_accuracy": float(torch.cat(objects).float().mean()),
        "box_iou": float(torch.cat(overlaps).mean()),
    }


def _centres(num_places: int, device: torch.device) -> Tensor:
    """Shares of the picture that the classes of a side stand for: 0 to 1."""
    return torch.linspace(0.0, 1.0, num_places, device=device)


def _read(logits: Tensor) -> Tensor:
    return _centres(logits.shape[-1], logits.device)[logits.argmax(dim=-1)]


def _overlap(found: Tensor, true: Tensor) -> Tensor:
    """IoU of boxes (N, 4) with boxes, one by one."""
    low, high = torch.maximum(found[:, :2], true[:, :2]), torch.minimum(found[:, 2:], true[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)

    def area(boxes: Tensor) -> Tensor:
        return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)

    return shared / (area(found) + area(true) - shared).clamp(min=1e-9)
