"""One vision transformer for both towers: DINOv2 with registers (Darcet et al. 2024) and SigLIP (Zhai et al. 2023).

Token order inside: [class token | registers | patches]; the output holds the patches alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.vision.patchify import PatchEmbedding
from vla.nn.attention import Attention
from vla.nn.mlp import Activation, PlainMLP


@dataclass(kw_only=True)
class ViTConfig:
    """Shape of one tower and what its pictures are normalised with."""

    patch_size: int = 14  # pixels
    width: int = 1024
    depth: int = 24  # blocks of the released tower; those after `output_block` are not built
    num_heads: int = 16
    mlp_width: int = 4096
    activation: Activation = Activation.GELU
    has_class_token: bool = True  # prepended, without a position
    num_registers: int = 4  # after the class token, without positions
    layer_scale: float | None = (
        1e-5  # initial gain of each residual branch; None leaves the gains out
    )
    output_block: int = -2  # tokens are taken after this block, counted like a Python index
    has_final_norm: bool = False  # LayerNorm over the tokens that are handed out
    stem_channels: list[int] = field(
        default_factory=list
    )  # 3x3 stride-2 convolutions before the patches
    norm_eps: float = 1e-6
    pixel_mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])  # RGB in [0, 1]
    pixel_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigError(
                f"a tower of width {self.width} cannot be split into {self.num_heads} heads; "
                "choose num_heads that divides the width"
            )
        if self.patch_size % 2 ** len(self.stem_channels):
            raise ConfigError(
                f"{len(self.stem_channels)} stride-2 convolutions do not fit a patch of "
                f"{self.patch_size} px; patch_size must be a multiple of {2 ** len(self.stem_channels)}"
            )
        if not -self.depth <= self.output_block < self.depth:
            raise ConfigError(
                f"output_block {self.output_block} is not among the {self.depth} blocks; "
                f"choose from {-self.depth} to {self.depth - 1}"
            )

    @property
    def num_blocks(self) -> int:
        """Blocks that are built: up to and including `output_block`."""
        return self.output_block % self.depth + 1


class ViT(nn.Module):
    """Patch features of a picture, taken after the configured block."""

    def __init__(self, config: ViTConfig, image_size: int) -> None:
        super().__init__()
        self.config = config
        self.grid = image_size // config.patch_size
        if image_size % config.patch_size:
            raise ConfigError(
                f"pictures of {image_size} px cannot be cut into patches of {config.patch_size} px; "
                f"choose a multiple, such as {(self.grid + 1) * config.patch_size}"
            )
        self.patches = PatchEmbedding(
            config.width, config.patch_size, stem_channels=config.stem_channels
        )
        self.position_table = nn.Parameter(torch.zeros(self.grid**2, config.width))
        num_extra = int(config.has_class_token) + config.num_registers
        self.extra_tokens = (
            nn.Parameter(torch.zeros(num_extra, config.width)) if num_extra else None
        )
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_blocks))
        self.final_norm = (
            nn.LayerNorm(config.width, eps=config.norm_eps) if config.has_final_norm else None
        )

    def forward(
        self, pixels: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch patches channels"]:
        """Returns patch features of pictures that are already normalised.

        Pictures of another size than the tower was built for get a resampled position table.
        """
        x = self.patches(pixels)
        grid = pixels.shape[-1] // self.config.patch_size
        x = x + resize_position_table(self.position_table, grid).to(x.dtype)
        num_extra = 0
        if self.extra_tokens is not None:
            num_extra = self.extra_tokens.shape[0]
            x = torch.cat([self.extra_tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = x[:, num_extra:]
        return x if self.final_norm is None else self.final_norm(x)


class _Block(nn.Module):
    """Pre-norm attention and feed-forward, each branch scaled per channel where the tower has LayerScale."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config.width, config.num_heads, bias=True)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = PlainMLP(config.width, config.mlp_width, config.activation)
        self.attention_scale = self.mlp_scale = None
        if config.layer_scale is not None:
            self.attention_scale = nn.Parameter(torch.full((config.width,), config.layer_scale))
            self.mlp_scale = nn.Parameter(torch.full((config.width,), config.layer_scale))

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        x = x + _scaled(self.attention(self.attention_norm(x)), self.attention_scale)
        return x + _scaled(self.mlp(self.mlp_norm(x)), self.mlp_scale)


def _scaled(branch: Tensor, scale: Tensor | None) -> Tensor:
    return branch if scale is None else branch * scale.to(branch.dtype)


def resize_position_table(
    table: Float[Tensor, "positions width"], grid: int
) -> Float[Tensor, "patches width"]:
    """Returns a square position table resampled to grid x grid (bicubic with antialias, as DINOv2 does)."""
    old_grid = math.isqrt(table.shape[0])
    if old_grid == grid:
        return table
    picture = table.view(1, old_grid, old_grid, -1).permute(0, 3, 1, 2)
    picture = F.interpolate(picture, size=(grid, grid), mode="bicubic", antialias=True)
    return picture.permute(0, 2, 3, 1).reshape(grid * grid, -1)
