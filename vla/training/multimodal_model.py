"""The small models of stages 2 and 3: one shape for each family, and the same at a higher resolution."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from vla.errors import CheckpointError
from vla.models.backbones import prismatic_config
from vla.models.backbones.families import AnyBackbone, AnyConfig, build_backbone
from vla.models.backbones.gemma4_config import Gemma4Config, tiny_gemma4
from vla.models.backbones.paligemma_config import PaliGemmaConfig, tiny_paligemma
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.backbones.qwen2_vl_config import Qwen2VLConfig
from vla.models.backbones.qwen2_vl_config import tiny as tiny_qwen2_vl
from vla.models.vision import presets
from vla.models.vision.position_tables import resize_position_table
from vla.models.vision.resize_rules import GEMMA4_TOKEN_BUDGETS
from vla.models.vision.vit import ViT
from vla.nn.masks import PrefixAttention
from vla.tokenizers.prompt_answer import PromptFamily
from vla.tokenizers.prompt_batch import first_id
from vla.tokenizers.prompt_chat import GEMMA4, QWEN2_VL
from vla.tokenizers.scene_vocabulary import PALIGEMMA_IMAGE
from vla.training.config import Part
from vla.training.pretrain_config import TowerShape


def new_config(
    family: PromptFamily, tokenizer: Tokenizer, image_size: int, tower: TowerShape
) -> AnyConfig:
    """Returns the shape of a small model; pictures of `image_size` are its square, or its largest area."""
    vocab_size = tokenizer.get_vocab_size()
    match family:
        case PromptFamily.PALIGEMMA:
            return replace(
                tiny_paligemma(vocab_size),
                image_size=image_size,
                tower=presets.tiny_siglip(tower.width, tower.depth, tower.patch_size),
                image_id=first_id(tokenizer, [PALIGEMMA_IMAGE]),
                pictures_apart=True,
            )
        case PromptFamily.PRISMATIC:
            shape = prismatic_config.tiny(
                vocab_size,
                vision_width=tower.width,
                vision_depth=tower.depth,
                patch_size=tower.patch_size,
            )
            return replace(
                shape,
                image_size=image_size,
                num_views=1,
                attention=PrefixAttention.CAUSAL,
            )
        case PromptFamily.QWEN2_VL:
            shape = tiny_qwen2_vl(vocab_size)
            assert QWEN2_VL.video is not None
            return replace(
                resized(shape, image_size),
                image_id=first_id(tokenizer, [QWEN2_VL.image]),
                video_id=first_id(tokenizer, [QWEN2_VL.video]),
            )
        case PromptFamily.GEMMA4:
            woven = replace(tiny_gemma4(vocab_size), patch_size=tower.patch_size)
            shape = resized(woven, image_size)
            return replace(shape, image_id=first_id(tokenizer, [GEMMA4.image]))


def resized[C: AnyConfig](config: C, image_size: int) -> C:
    """Returns the same model for pictures of another size: a square, or as many pixels of any shape."""
    match config:
        case PrismaticConfig() | PaliGemmaConfig():
            return replace(config, image_size=image_size)
        case Qwen2VLConfig():
            pixels = max(image_size**2, config.min_pixels)
            return replace(config, max_pixels=pixels, max_clip_pixels=pixels)
        case Gemma4Config():
            side = config.pixels_per_patch * config.patches_per_side
            wanted = (image_size // side) ** 2
            budgets = [count for count in GEMMA4_TOKEN_BUDGETS if count <= wanted]
            return replace(config, token_budget=budgets[-1] if budgets else wanted)
    raise AssertionError(config)


def square_size(config: AnyConfig) -> int | None:
    """Returns the side of the squares that pictures are stretched to; None for families that keep their shape."""
    return config.image_size if isinstance(config, PrismaticConfig | PaliGemmaConfig) else None


def parts_of(backbone: AnyBackbone) -> dict[Part, nn.Module]:
    """Returns what a stage may freeze, by name; a part that the family has not is an empty module."""
    connector = backbone.connector
    return {
        Part.VISION: backbone.vision,
        Part.CONNECTOR: nn.Identity() if connector is None else connector,
        Part.DECODER: backbone.decoder,
    }


def grown(backbone: AnyBackbone, image_size: int) -> AnyBackbone:
    """Returns the model with the same weights for pictures of another size; position tables are interpolated.

    Families that take pictures of any shape need nothing but their larger budget of tokens.

    Raises:
        CheckpointError: a weight other than a position table has another shape.
    """
    larger = build_backbone(resized(backbone.config, image_size))
    tables = {
        f"{name}.position_table" if name else "position_table": module
        for name, module in backbone.named_modules()
        if isinstance(module, ViT) and module.position_table is not None
    }
    weights = backbone.state_dict()
    for name, wanted in larger.state_dict().items():
        if weights[name].shape == wanted.shape:
            continue
        if name not in tables:
            raise CheckpointError(
                f"{name} has shape {tuple(weights[name].shape)}, and {tuple(wanted.shape)} at {image_size} px; only "
                "position tables can be interpolated"
            )
        weights[name] = _stretched(weights[name], wanted.shape[0], tables[name])
    larger.load_state_dict(weights)
    return larger


def _stretched(table: Tensor, num_rows: int, tower: ViT) -> Tensor:
    lead = int(tower.config.has_class_position)
    side = math.isqrt(num_rows - lead)
    stretched = resize_position_table(table[lead:], side, resampling=tower.config.resampling)
    return torch.cat([table[:lead], stretched])
