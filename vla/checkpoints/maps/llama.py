"""Llama 1 and 2 in transformers' layout: config.json and weights. Source: transformers 5.5.4, models/llama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap
from vla.checkpoints.maps import settings
from vla.checkpoints.maps.decoder import decoder_key_map
from vla.models.decoder_config import DecoderConfig


def decoder_config(values: Mapping[str, Any]) -> DecoderConfig:
    """Returns the shape that config.json describes; raises CheckpointError for what is not supported, by name."""
    settings.check_model_type(values, "llama")
    settings.refuse(values, {"attention_bias": [False], "mlp_bias": [False]})
    num_heads = values.get("num_attention_heads", 32)
    width = values.get("hidden_size", 4096)
    return DecoderConfig(
        vocab_size=values.get("vocab_size", 32000),
        width=width,
        depth=values.get("num_hidden_layers", 32),
        num_heads=num_heads,
        num_kv_heads=values.get("num_key_value_heads") or num_heads,
        head_dim=values.get("head_dim") or width // num_heads,
        mlp_width=values.get("intermediate_size", 11008),
        activation=settings.activation(values.get("hidden_act", "silu")),
        rope_theta=settings.plain_theta(values, 10000.0),
        norm_eps=values.get("rms_norm_eps", 1e-6),
        head=settings.head(values, is_tied=False),
        max_tokens=values.get("max_position_embeddings", 2048),
    )


def key_map(config: DecoderConfig) -> KeyMap:
    """Returns the map of a Llama by itself."""
    return decoder_key_map("Llama", config)
