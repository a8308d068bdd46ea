"""Colour jitter for a whole batch at once; pictures are never shifted (3 px are 2 to 3 cm on the table at 64 px)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vla.errors import ConfigError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(kw_only=True)
class ColorJitterConfig:
    """How far each property may move; 0 leaves it alone. OpenVLA uses 0.2 for all three."""

    brightness: float = 0.0  # factor drawn from 1 - b .. 1 + b
    contrast: float = 0.0  # likewise, about the mean grey of the picture
    saturation: float = 0.0  # likewise, about each pixel's grey

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"jitter.{name} must lie in [0, 1); got {getattr(self, name)}")

    @property
    def is_on(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation) > 0


def jitter_colors(images: Tensor, cfg: ColorJitterConfig, generator: torch.Generator) -> Tensor:
    """Returns `images` (..., 3, H, W) uint8 with their colours moved, each picture by its own amounts.

    Brightness, contrast and saturation are linear in the colour of a pixel, so the three together are one 3 x 3 matrix
    and one offset per picture; clipping happens once, at the end.
    """
    pictures = images.reshape(-1, *images.shape[-3:])
    count = len(pictures)

    def factor(amount: float) -> Tensor:
        return 1.0 + amount * (2.0 * torch.rand(count, 1, 1, generator=generator) - 1.0)

    brightness, contrast, saturation = (
        factor(cfg.brightness),
        factor(cfg.contrast),
        factor(cfg.saturation),
    )
    luma = torch.tensor(_LUMA)
    grey = torch.ones(3, 1) * luma  # every channel becomes the pixel's grey
    matrix = brightness * contrast * (saturation * torch.eye(3) + (1.0 - saturation) * grey)
    flat = pictures.flatten(-2).float()
    mean_grey = (luma @ flat.mean(-1).T).view(count, 1, 1) * brightness
    moved = torch.baddbmm(
        (1.0 - contrast) * mean_grey + 0.5, matrix, flat
    )  # + 0.5: rounding, not truncation
    return moved.clamp_(0, 255).to(torch.uint8).view(images.shape)
