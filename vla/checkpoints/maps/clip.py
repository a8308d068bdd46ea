"""CLIP in transformers' layout: config.json and weights. Source: transformers 5.5.4, models/clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap, Table, affine, prefixed
from vla.checkpoints.maps import settings, siglip
from vla.checkpoints.maps.towers import encoder_tower
from vla.models.dual_encoder import DualEncoderConfig, TextTowerConfig
from vla.models.vision.presets import CLIP_MEAN, CLIP_STD
from vla.models.vision.vit_config import Resampling, ViTConfig

_OLD_END_ID = 2  # what early configs say; they mean the largest id of the vocabulary


def tower_config(values: Mapping[str, Any]) -> ViTConfig:
    """Returns the tower that config.json, or its `vision_config`, describes."""
    values = dict(values.get("vision_config", values))
    settings.check_model_type(values, "clip_vision_model")
    settings.refuse(values, {"num_channels": [3]})
    return ViTConfig(
        patch_size=values.get("patch_size", 32),
        width=values.get("hidden_size", 768),
        depth=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 12),
        mlp_width=values.get("intermediate_size", 3072),
        activation=settings.activation(values.get("hidden_act", "quick_gelu")),
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        has_final_norm=True,
        has_patch_bias=False,
        resampling=Resampling.BICUBIC_PLAIN,
        has_class_position=True,
        has_pre_norm=True,
        norm_eps=values.get("layer_norm_eps", 1e-5),
        pixel_mean=list(CLIP_MEAN),
        pixel_std=list(CLIP_STD),
    )


def text_config(values: Mapping[str, Any]) -> TextTowerConfig:
    """Returns the text tower that the `text_config` of config.json describes."""
    vocab_size = values.get("vocab_size", 49408)
    end_id = values.get("eos_token_id", 49407)
    return TextTowerConfig(
        vocab_size=vocab_size,
        max_tokens=values.get("max_position_embeddings", 77),
        width=values.get("hidden_size", 512),
        depth=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 8),
        mlp_width=values.get("intermediate_size", 2048),
        activation=settings.activation(values.get("hidden_act", "quick_gelu")),
        norm_eps=values.get("layer_norm_eps", 1e-5),
        is_causal=True,
        end_id=vocab_size - 1 if end_id == _OLD_END_ID else end_id,
    )


def model_config(values: Mapping[str, Any]) -> DualEncoderConfig:
    """Returns both towers that config.json describes."""
    settings.check_model_type(values, "clip")
    vision = values.get("vision_config", {})
    return DualEncoderConfig(
        vision=tower_config(vision),
        image_size=vision.get("image_size", 224),
        text=text_config(values.get("text_config", {})),
        embedding_width=values.get("projection_dim", 512),
        has_image_projection=True,
        text_projection_bias=False,
        log_temperature=values.get("logit_scale_init_value", 2.6592),
        logit_bias=None,
    )


def key_map(config: DualEncoderConfig) -> KeyMap:
    """Returns the map of both towers."""
    table: Table = {
        **prefixed("vision.", "vision_model.", encoder_tower(config.vision)),
        **siglip.text_table(config.text),
        **affine("image_projection", "visual_projection", bias=False),
        **affine("text_projection", "text_projection", bias=False),
        "log_temperature": "logit_scale",
    }
    return KeyMap(family="CLIP", table=table, unread=siglip.UNREAD)
