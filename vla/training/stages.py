"""Which parts of a model a stage trains."""

from __future__ import annotations

from torch import nn

from vla.errors import ConfigError
from vla.models.vision.vit import ViT
from vla.training.config import Part


def freeze(model: nn.Module, parts: list[Part], part_modules: dict[Part, nn.Module]) -> int:
    """Turns gradients off for the named parts and on for all else; returns the number of trainable parameters.

    Args:
        part_modules: the module that is each part.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for part in parts:
        for parameter in part_modules[part].parameters():
            parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, ViT):
            module.freeze_unread()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if trainable == 0:
        raise ConfigError(
            f"frozen_parts={[p.value for p in parts]} leaves nothing to train; unfreeze one"
        )
    return trainable
