"""Several vision towers looking at the same pictures; their patch features side by side on the channel axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.vision.vit import ViT, ViTConfig


class FusedTowers(nn.Module):
    """DINOv2 first, then SigLIP: geometry and meaning of the same patch (Karamcheti et al. 2024, Prismatic)."""

    def __init__(self, configs: Sequence[ViTConfig], image_size: int) -> None:
        super().__init__()
        patch_sizes = {config.patch_size for config in configs}
        if len(patch_sizes) != 1:
            raise ConfigError(
                f"towers with patches of {sorted(patch_sizes)} px have different grids; give all of them one patch_size"
            )
        self.configs = list(configs)
        self.towers = nn.ModuleList(ViT(config, image_size) for config in configs)
        self.width = sum(config.width for config in configs)
        self.num_patches = (image_size // configs[0].patch_size) ** 2

    def forward(
        self, images: UInt8[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch patches channels"]:
        """Returns fused patch features of raw pictures; each tower normalises them in its own way."""
        pixels = images.contiguous(memory_format=torch.channels_last).to(torch.float32)
        dtype = next(self.parameters()).dtype
        return self.encode([_normalised(pixels, config).to(dtype) for config in self.configs])

    def encode(
        self, pixels: Sequence[Float[Tensor, "batch 3 rows columns"]]
    ) -> Float[Tensor, "batch patches channels"]:
        """Returns fused patch features of pictures already normalised, one entry a tower."""
        features = [tower(x) for tower, x in zip(self.towers, pixels, strict=True)]
        return torch.cat(features, dim=-1)


def _normalised(pixels: Tensor, config: ViTConfig) -> Tensor:
    """(x / 255 - mean) / std as one multiplication and one addition a pixel."""
    mean = torch.tensor(config.pixel_mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(config.pixel_std, device=pixels.device).view(3, 1, 1)
    return torch.addcmul(-mean / std, pixels, 1.0 / (255.0 * std))
