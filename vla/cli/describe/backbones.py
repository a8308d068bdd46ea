"""What a backbone is made of and what it costs, from its shape alone: no weights take memory."""

from __future__ import annotations

from typing import Any

from torch import nn

from vla.cli.backbones import FAMILY_NAMES, backbone_config, build_shape
from vla.cli.describe.pictures import connector_of, encode_flops, picture_cost
from vla.cli.describe.stages import STAGE_NAMES, STAGES, Training
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.families import AnyBackbone, family_of
from vla.models.backbones.gemma4_config import Gemma4Config
from vla.models.backbones.paligemma_config import PaliGemmaConfig
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.backbones.qwen2_vl_config import Qwen2VLConfig
from vla.models.cost import decoder_flops, head_flops, kv_bytes
from vla.models.decoder_config import Head
from vla.models.vision.resize_rules import GEMMA4_TOKEN_BUDGETS

PICTURE_SIZES = ((224, 224), (480, 640), (720, 1280))  # rows x columns, pixels
CONTEXT_WORDS = 32  # beside one picture of the second size: where costs a token are given
BYTES_PER_WEIGHT = 2  # bf16


def describe_backbone(name: str) -> dict[str, Any]:
    """Returns parts, stages, pictures and costs of a named backbone; raises ConfigError for an unknown name."""
    return describe_model(build_shape(backbone_config(name)))


def describe_model(model: AnyBackbone) -> dict[str, Any]:
    """Returns the same of a model, whatever its weights."""
    config = model.config
    total = sum(weight.numel() for weight in model.parameters())
    return {
        "family": FAMILY_NAMES[family_of(config)],
        "parameters": total,
        "parts": _parts(model, total),
        "gigabytes_in_bf16": round(total * BYTES_PER_WEIGHT / 1e9, 3),
        "stages": _stages(model),
        "released": STAGES[family_of(config)].released,
        "tokens": _tokens(model),
        "pictures": _pictures(model),
        "decoder": _decoder(model),
        "costs": _costs(model),
    }


def describe_acting(model: VisionLanguageAction, num_views: int, image_size: int) -> dict[str, Any]:
    """Returns the same of a model that acts, with its heads among the parts."""
    described = describe_model(model.backbone)
    total, actions = _size(model), model.config
    heads = {name: size for name, size in _parts(model, total).items() if name != "backbone"}
    image_tokens = model.backbone.num_image_tokens((3, image_size, image_size))
    return {
        **described,
        "parameters": total,
        "parts": {**described["parts"], **heads},
        "gigabytes_in_bf16": round(total * BYTES_PER_WEIGHT / 1e9, 3),
        "tokens": {
            "image_tokens_per_view": image_tokens,
            "views": num_views,
            "image_tokens": image_tokens * num_views,
            "proprioception_tokens": int(actions.state_width > 0),
            "action_numbers_per_chunk": actions.chunk_length * actions.action_width,
        },
        "shapes": {
            "image": [num_views, 3, image_size, image_size],
            "state": [actions.state_width],
            "action_chunk": [actions.chunk_length, actions.action_width],
        },
        "action_decoding": actions.decoding.value,
        **({"action_layout": actions.layout.value} if actions.has_bins else {}),
        **({"fast_token_rows": actions.num_fast_tokens} if actions.num_fast_tokens else {}),
    }


def _parts(model: nn.Module, total: int) -> dict[str, int]:
    parts = {
        name: sum(weight.numel() for weight in part.parameters())
        for name, part in model.named_children()
    }
    parts["other"] = total - sum(parts.values())
    return {name: count for name, count in parts.items() if count}


def _stages(model: AnyBackbone) -> list[dict[str, Any]]:
    """Which part is trained when, and how many parameters that makes."""
    parts = {"vision": model.vision, "connector": connector_of(model)}
    sizes = {name: _size(part) for name, part in parts.items()}
    sizes["decoder"] = _size(model) - sum(sizes.values())  # with everything that belongs to it
    plan = STAGES[family_of(model.config)]
    rows = []
    for index, stage in enumerate(STAGE_NAMES):
        states = {name: getattr(plan, name)[index] for name in sizes}
        moving = (Training.APART, Training.TRAINED)
        trained = sum(size for name, size in sizes.items() if states[name] in moving)
        row = {name: state.value for name, state in states.items()}
        rows.append({"stage": stage, **row, "trained_parameters": trained})
    return rows


def _size(part: nn.Module | None) -> int:
    return 0 if part is None else sum(weight.numel() for weight in part.parameters())


def _tokens(model: AnyBackbone) -> dict[str, Any]:
    config = model.config
    match config:
        case PrismaticConfig():
            return {
                "image_tokens_per_view": (per_view := picture_cost(config, 1, 1).num_tokens),
                "views": config.num_views,
                "image_tokens": per_view * config.num_views,
            }
        case PaliGemmaConfig():
            return {"image_tokens": config.num_image_tokens}
        case Qwen2VLConfig():
            area = config.token_side**2
            least, most = config.min_pixels // area, config.max_pixels // area
            return {"fewest_image_tokens": least, "most_image_tokens": most}
        case Gemma4Config():
            rows, columns = PICTURE_SIZES[1]
            return {
                "most_image_tokens": config.token_budget,
                f"image_tokens_of_{rows}_x_{columns}_by_budget": {
                    budget: picture_cost(config, rows, columns, budget).num_tokens
                    for budget in GEMMA4_TOKEN_BUDGETS
                },
            }


def _pictures(model: AnyBackbone) -> list[dict[str, Any]]:
    rows = []
    for height, width in PICTURE_SIZES:
        cost = picture_cost(model.config, height, width)
        rows.append(
            {
                "given": [height, width],
                "read": [cost.rows, cost.columns],
                "patches": cost.num_patches,
                "image_tokens": cost.num_tokens,
                "encode_flops": encode_flops(model, cost),
            }
        )
    return rows


def _decoder(model: AnyBackbone) -> dict[str, Any]:
    config = model.config.decoder
    kv = kv_bytes(config)
    return {
        "blocks": config.depth,
        "width": config.width,
        "vocabulary": config.vocab_size,
        "context_tokens": config.max_tokens,
        "kv_bytes_per_token": kv.per_token,
        "window_tokens": kv.window,
        "kv_bytes_per_token_beyond_the_window": kv.per_far_token,
    }


def _costs(model: AnyBackbone) -> dict[str, Any]:
    """Per token, in a context of one picture and some words; reading all of it at once, or the next token alone."""
    num_tokens = picture_cost(model.config, *PICTURE_SIZES[1]).num_tokens + CONTEXT_WORDS
    prefill = decoder_flops(model.decoder, num_tokens, num_tokens) // num_tokens
    decode = decoder_flops(model.decoder, 1, num_tokens + 1) + _head_flops(model)
    return {
        "context_tokens": num_tokens,
        "prefill_flops_per_token": prefill,
        "decode_flops_per_token": decode,
        "kv_bytes": kv_bytes(model.config.decoder).per_token * num_tokens,
    }


def _head_flops(model: AnyBackbone) -> int:
    return 0 if model.config.decoder.head is Head.NONE else head_flops(model.decoder)
