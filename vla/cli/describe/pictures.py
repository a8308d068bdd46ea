"""What a picture becomes in each family: the size it is read at, patches, image tokens, and operations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vla.models.backbones.families import AnyBackbone, AnyConfig
from vla.models.backbones.gemma4_config import Gemma4Config
from vla.models.backbones.paligemma_config import PaliGemmaConfig
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.backbones.qwen2_vl_config import Qwen2VLConfig
from vla.models.cost import linear_flops, tower_flops
from vla.models.vision.fused import FusedTowers
from vla.models.vision.resize_rules import gemma4_size, qwen2_vl_size
from vla.models.vision.vit import ViT


@dataclass(frozen=True, kw_only=True)
class PictureCost:
    """What a picture becomes.

    Attributes:
        rows, columns: as the model reads it, pixels.
        num_patches: read by every tower, filling included; 0 where there is none.
        num_tokens: image tokens.
    """

    rows: int
    columns: int
    num_patches: int
    num_tokens: int


def picture_cost(
    config: AnyConfig, rows: int, columns: int, token_budget: int | None = None
) -> PictureCost:
    """Returns what a picture of rows x columns pixels becomes; `token_budget` instead of the config's is Gemma 4's."""
    match config:
        case PrismaticConfig():
            side, patch = config.image_size, config.towers[0].patch_size
            num_patches = (side // patch) ** 2
            return PictureCost(
                rows=side, columns=side, num_patches=num_patches, num_tokens=num_patches
            )
        case PaliGemmaConfig():
            side, count = config.image_size, config.num_image_tokens
            return PictureCost(rows=side, columns=side, num_patches=count, num_tokens=count)
        case Qwen2VLConfig():
            rows, columns = qwen2_vl_size(
                rows,
                columns,
                factor=config.token_side,
                min_pixels=config.min_pixels,
                max_pixels=config.max_pixels,
            )
            patches = (rows // config.tower.patch_size) * (columns // config.tower.patch_size)
            return PictureCost(
                rows=rows,
                columns=columns,
                num_patches=patches,
                num_tokens=patches // config.merge_size**2,
            )
        case Gemma4Config():
            budget = token_budget or config.token_budget
            side = config.pixels_per_patch * config.patches_per_side
            rows, columns = gemma4_size(rows, columns, token_budget=budget, token_size=side)
            padded = 0 if config.tower is None else budget * config.patches_per_side**2
            return PictureCost(
                rows=rows,
                columns=columns,
                num_patches=padded,
                num_tokens=(rows // side) * (columns // side),
            )


def encode_flops(model: AnyBackbone, cost: PictureCost) -> int:
    """Returns the operations from a prepared picture to its image tokens."""
    match model.vision:
        case ViT() as tower:
            flops = tower_flops(tower, cost.num_patches)
        case FusedTowers() as fused:
            towers = (tower for tower in fused.towers if isinstance(tower, ViT))
            flops = sum(tower_flops(tower, cost.num_patches) for tower in towers)
        case raw_patches:
            flops = linear_flops(raw_patches) * cost.num_tokens
    connector = connector_of(model)
    return flops if connector is None else flops + linear_flops(connector) * cost.num_tokens


def connector_of(model: AnyBackbone) -> nn.Module | None:
    """Returns what makes tokens of the decoder of vision features; None where patches are tokens already."""
    return model.connector
