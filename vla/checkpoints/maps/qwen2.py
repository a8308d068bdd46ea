"""Qwen2, alone or inside Qwen2-VL, in transformers' layout: config.json and weights.

Source: transformers 5.5.4, models/qwen2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap
from vla.checkpoints.maps import settings
from vla.checkpoints.maps.decoder import decoder_key_map
from vla.models.decoder_config import DecoderConfig


def decoder_config(values: Mapping[str, Any]) -> DecoderConfig:
    """Returns the shape that config.json describes; raises CheckpointError for what is not supported, by name.

    Qwen2-VL's config.json is taken too, with the language model's settings on top (as on the hub) or under
    `text_config` (as transformers 5 saves it).
    """
    settings.check_model_type(values, "qwen2", "qwen2_vl", "qwen2_vl_text")
    values = settings.text_settings(values)
    num_heads, width = values.get("num_attention_heads", 32), values.get("hidden_size", 4096)
    depth = values.get("num_hidden_layers", 32)
    window = values.get("sliding_window", 4096) if values.get("use_sliding_window") else None
    full_layers = list(range(min(depth, values.get("max_window_layers", 28))))
    if window is not None and values.get("layer_types") is not None:
        full_layers = settings.full_layers(values, depth, pattern=1)
    return DecoderConfig(
        vocab_size=values.get("vocab_size", 151936),
        width=width,
        depth=depth,
        num_heads=num_heads,
        num_kv_heads=values.get("num_key_value_heads") or num_heads,
        head_dim=values.get("head_dim") or width // num_heads,
        mlp_width=values.get("intermediate_size", 22016),
        activation=settings.activation(values.get("hidden_act", "silu")),
        rope_theta=settings.plain_theta(values, 10000.0),
        norm_eps=values.get("rms_norm_eps", 1e-6),
        head=settings.head(values, is_tied=False),
        qkv_bias=True,
        rope_sections=settings.rope(values).get("mrope_section"),
        window=window,
        full_layers=[] if window is None else full_layers,
        max_tokens=values.get("max_position_embeddings", 32768),
    )


def key_map(config: DecoderConfig) -> KeyMap:
    """Returns the map of a Qwen2 by itself."""
    return decoder_key_map("Qwen2", config)
