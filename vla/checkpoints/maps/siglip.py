"""SigLIP in transformers' layout: config.json and weights, both towers or the pictures' alone.

Checkpoints of SigLIP2 for pictures of one size are of this family too. Source: transformers 5.5.4, models/siglip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap, Table, affine, prefixed, reshaped
from vla.checkpoints.maps import settings
from vla.checkpoints.maps.towers import encoder_blocks, encoder_tower
from vla.errors import CheckpointError
from vla.models.dual_encoder import DualEncoderConfig, TextTowerConfig
from vla.models.vision.vit_config import Resampling, ViTConfig

UNREAD = ("*.embeddings.position_ids",)  # older versions stored 0, 1, 2, ...


def tower_config(values: Mapping[str, Any]) -> ViTConfig:
    """Returns the tower that config.json, or its `vision_config`, describes."""
    values = dict(values.get("vision_config", values))
    settings.check_model_type(values, "siglip_vision_model", "siglip2_vision_model")
    settings.refuse(values, {"num_channels": [3]})
    return ViTConfig(
        patch_size=values.get("patch_size", 16),
        width=values.get("hidden_size", 768),
        depth=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 12),
        mlp_width=values.get("intermediate_size", 3072),
        activation=settings.activation(values.get("hidden_act", "gelu_pytorch_tanh")),
        has_class_token=False,
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        has_final_norm=True,
        resampling=Resampling.BICUBIC_PLAIN,
        has_attention_pool=values.get("vision_use_head", True),
        norm_eps=values.get("layer_norm_eps", 1e-6),
    )


def text_config(values: Mapping[str, Any]) -> TextTowerConfig:
    """Returns the text tower that the `text_config` of config.json describes."""
    return TextTowerConfig(
        vocab_size=values.get("vocab_size", 32000),
        max_tokens=values.get("max_position_embeddings", 64),
        width=values.get("hidden_size", 768),
        depth=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 12),
        mlp_width=values.get("intermediate_size", 3072),
        activation=settings.activation(values.get("hidden_act", "gelu_pytorch_tanh")),
        norm_eps=values.get("layer_norm_eps", 1e-6),
    )


def model_config(values: Mapping[str, Any]) -> DualEncoderConfig:
    """Returns both towers that config.json describes."""
    settings.check_model_type(values, "siglip")
    vision = tower_config(values.get("vision_config", {}))
    image_size = values.get("vision_config", {}).get("image_size", 224)
    return paired(vision, image_size // vision.patch_size * vision.patch_size, values)


def paired(vision: ViTConfig, image_size: int, values: Mapping[str, Any]) -> DualEncoderConfig:
    """Returns a pair with this tower and the texts' that config.json describes.

    Raises:
        CheckpointError: the two have embeddings of different widths.
    """
    values = values.get("text_config", {})
    text = text_config(values)
    if values.get("projection_size", text.width) != vision.width:
        raise CheckpointError(
            f"config.json has texts of {values.get('projection_size', text.width)} channels and pictures of "
            f"{vision.width}; they must be equal"
        )
    return DualEncoderConfig(
        vision=vision, image_size=image_size, text=text, embedding_width=vision.width
    )


def tower_key_map(config: ViTConfig) -> KeyMap:
    """Returns the map of the pictures' tower by itself."""
    return KeyMap(
        family="SigLIP's tower",
        table=prefixed("", "vision_model.", encoder_tower(config)),
        prefixes={"": "vision_model."},
        unread=UNREAD,
    )


def key_map(config: DualEncoderConfig) -> KeyMap:
    """Returns the map of both towers."""
    return paired_key_map("SigLIP", config)


def paired_key_map(
    family: str, config: DualEncoderConfig, *, has_linear_patches: bool = False
) -> KeyMap:
    """Returns the map of both towers of SigLIP or SigLIP2."""
    tower = encoder_tower(config.vision, has_linear_patches=has_linear_patches)
    table: Table = {
        **prefixed("vision.", "vision_model.", tower),
        **text_table(config.text),
        **affine("text_projection", "text_model.head"),
        "log_temperature": reshaped("logit_scale", ours=(), theirs=(1,)),
        "logit_bias": reshaped("logit_bias", ours=(), theirs=(1,)),
    }
    return KeyMap(family=family, table=table, unread=UNREAD)


def text_table(config: TextTowerConfig) -> Table:
    """Returns the entries of a text tower without its projection; CLIP names them alike."""
    table: Table = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "position_table": "embeddings.position_embedding.weight",
        **encoder_blocks(config.width, config.depth),
        **affine("final_norm", "final_layer_norm"),
    }
    return prefixed("text.", "text_model.", table)
