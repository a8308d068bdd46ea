"""DINOv2 with registers in transformers' layout (and without) and in timm's.

Sources: transformers 5.5.4, models/{dinov2,dinov2_with_registers}; timm 0.9.10 vision_transformer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap
from vla.checkpoints.maps import settings
from vla.checkpoints.maps.towers import dinov2_tower, timm_tower
from vla.models.vision.presets import IMAGENET_MEAN, IMAGENET_STD
from vla.models.vision.vit_config import Resampling, ViTConfig


def tower_config(values: Mapping[str, Any]) -> ViTConfig:
    """Returns the tower that transformers' config.json describes; its image_size goes to `ViT`."""
    settings.check_model_type(values, "dinov2_with_registers", "dinov2")
    settings.refuse(values, {"num_channels": [3], "use_swiglu_ffn": [False], "qkv_bias": [True]})
    width = values.get("hidden_size", 768)
    has_registers = values.get("model_type", "dinov2_with_registers") != "dinov2"
    return ViTConfig(
        patch_size=values.get("patch_size", 16 if has_registers else 14),
        width=width,
        depth=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 12),
        mlp_width=width * values.get("mlp_ratio", 4),
        activation=settings.activation(values.get("hidden_act", "gelu")),
        num_registers=values.get("num_register_tokens", 4) if has_registers else 0,
        layer_scale=values.get("layerscale_value", 1.0),
        output_block=-1,
        has_final_norm=True,
        resampling=Resampling.BICUBIC if has_registers else Resampling.BICUBIC_PLAIN,
        has_class_position=True,
        has_mask_token=True,
        norm_eps=values.get("layer_norm_eps", 1e-6),
        pixel_mean=list(IMAGENET_MEAN),
        pixel_std=list(IMAGENET_STD),
    )


def key_map(config: ViTConfig) -> KeyMap:
    """Returns the map of transformers' layout, in which the class token has a position."""
    return KeyMap(
        family="DINOv2",
        table=dinov2_tower(config),
        prefixes={
            f"{name}.{part}": part
            for name in ("dinov2_with_registers", "dinov2")
            for part in ("embeddings.", "encoder.", "layernorm.")
        },
        unread=["classifier.*"],
    )


def timm_key_map(config: ViTConfig) -> KeyMap:
    """Returns the map of timm's layout, in which class token and registers have no positions."""
    return KeyMap(
        family="DINOv2 (timm)",
        table=timm_tower(config),
        endings={".scale_factor": ".gamma"},
    )
