"""What a tower's patches know: a linear map from frozen features to the colour and the shape of the object there."""

from __future__ import annotations

import torch
from torch import Tensor

from vla.data.patch_labels import LabelledPatches
from vla.models.vision.pictures import normalised
from vla.models.vision.vit import ViT
from vla.training.track import Metrics

_RIDGE = 1e-2  # of the features' mean square
_PICTURES_AT_A_TIME = 64


@torch.no_grad()
def probe(tower: ViT, patches: LabelledPatches) -> Metrics:
    """Returns `color_accuracy` and `shape_accuracy` on the later half of the pictures; the first half fits the map.

    The map is ridge regression onto one-hot classes: no seed, no steps, the same answer every time. Also gives
    `num_patches` of the later half, and the share of the commonest class, `color_majority` and `shape_majority`.
    """
    tower.eval()
    features = _features(tower, patches)
    picture = torch.from_numpy(patches.picture)
    is_learnt = picture < len(patches.pictures) // 2
    metrics: Metrics = {"num_patches": float((~is_learnt).sum())}
    for kind, labels in patches.labels.items():
        classes = torch.from_numpy(labels)
        weights = _ridge(features[is_learnt], classes[is_learnt], len(patches.names[kind]))
        given = (_with_one(features[~is_learnt]) @ weights).argmax(dim=1)
        truth = classes[~is_learnt]
        metrics[f"{kind}_accuracy"] = float((given == truth).double().mean())
        metrics[f"{kind}_majority"] = float(truth.bincount().max() / len(truth))
    return metrics


def _features(tower: ViT, patches: LabelledPatches) -> Tensor:
    """(P, width) float64, each channel with mean 0 and deviation 1."""
    device = next(tower.parameters()).device
    config = tower.config
    parts = []
    for start in range(0, len(patches.pictures), _PICTURES_AT_A_TIME):
        pictures = torch.from_numpy(patches.pictures[start : start + _PICTURES_AT_A_TIME])
        pixels = normalised(
            pictures.to(device).movedim(1, -1), config.pixel_mean, config.pixel_std
        ).movedim(-1, 1)
        parts.append(tower(pixels).cpu())
    features = torch.cat(parts)[patches.picture, patches.patch].double()
    return (features - features.mean(dim=0)) / features.std(dim=0).clamp(min=1e-9)


def _ridge(features: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    x = _with_one(features)
    targets = torch.nn.functional.one_hot(classes, num_classes).double()
    penalty = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(x.T @ x + penalty, x.T @ targets)


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)
