"""Gemma 4's language model in transformers' layout: config.json and weights; experts are left out.

Source: transformers 5.5.4 models/gemma4, and 5.23.0 models/{gemma4,gemma4_unified} for the later spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap
from vla.checkpoints.maps import settings
from vla.checkpoints.maps.decoder import decoder_key_map
from vla.errors import CheckpointError
from vla.models.decoder_config import DecoderConfig
from vla.nn.norms import Norm

_DEFAULTS: dict[str, Any] = {  # what config.json may leave out
    "vocab_size": 262144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "hidden_size_per_layer_input": 256,
    "vocab_size_per_layer_input": 262144,
    "attention_k_eq_v": False,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {
            "rope_type": "proportional",
            "partial_rotary_factor": 0.25,
            "rope_theta": 1000000.0,
        },
    },
}
_UNIFIED_DEFAULTS: dict[str, Any] = {
    **_DEFAULTS,
    "sliding_window": 1024,
    "max_position_embeddings": 262144,
    "hidden_size_per_layer_input": 0,
}
_PATTERN = 6  # every sixth layer is full, and the last one


def decoder_config(values: Mapping[str, Any]) -> DecoderConfig:
    """Returns the shape that config.json, or its `text_config`, describes.

    Raises:
        CheckpointError: the config asks for something that is not supported, such as experts; it is named.
    """
    values = settings.text_settings(values)
    settings.check_model_type(values, "gemma4_text", "gemma4_unified_text")
    is_unified = values.get("model_type") == "gemma4_unified_text"
    defaults = _UNIFIED_DEFAULTS if is_unified else _DEFAULTS
    values = defaults | {name: value for name, value in values.items() if value is not None}
    settings.refuse(
        values,
        {
            "attention_bias": [False],
            "enable_moe_block": [False],
            "use_bidirectional_attention": [None, "vision"],
        },
    )
    depth = values["num_hidden_layers"]
    full_layers = settings.full_layers(values, depth, _PATTERN)
    full_layers = sorted({*full_layers, depth - 1})
    full = settings.rope(values, "full_attention")
    settings.refuse(full, {"rope_type": ["default", "proportional"]})
    head_dim, num_kv_heads = _full_shape(values, full_layers)
    has_inputs = values["hidden_size_per_layer_input"] > 0
    return DecoderConfig(
        vocab_size=values["vocab_size"],
        width=values["hidden_size"],
        depth=depth,
        num_heads=values["num_attention_heads"],
        num_kv_heads=values["num_key_value_heads"],
        head_dim=values["head_dim"],
        mlp_width=values["intermediate_size"],
        activation=settings.activation(values["hidden_activation"]),
        rope_theta=settings.plain_theta(values, 10000.0, "sliding_attention"),
        norm_eps=values["rms_norm_eps"],
        norm=Norm.RMS,
        head=settings.head(values, is_tied=True),
        has_post_norms=True,
        has_qk_norm=True,
        has_v_norm=True,
        attention_scale=1.0,
        final_softcap=values.get("final_logit_softcapping"),
        scales_embedding=True,
        window=values["sliding_window"],
        full_layers=full_layers,
        full_rope_theta=float(full.get("rope_theta", 1e6)),
        full_rope_share=float(full.get("partial_rotary_factor", 1.0)),
        full_rope_factor=float(full.get("factor", 1.0)),
        full_head_dim=head_dim,
        full_num_kv_heads=num_kv_heads,
        full_values_are_keys=values["attention_k_eq_v"],
        num_shared_layers=values.get("num_kv_shared_layers", 0),
        shared_mlp_factor=2 if values.get("use_double_wide_mlp") else 1,
        per_layer_width=values["hidden_size_per_layer_input"],
        per_layer_vocab_size=values["vocab_size_per_layer_input"] if has_inputs else 0,
        has_layer_scalars=True,
        max_tokens=values["max_position_embeddings"],
    )


def key_map(config: DecoderConfig) -> KeyMap:
    """Returns the map of Gemma 4's language model by itself."""
    return decoder_key_map("Gemma 4", config)


def _full_shape(values: Mapping[str, Any], full_layers: list[int]) -> tuple[int, int]:
    """Head width and number of key-value heads of full layers."""
    own = values["head_dim"], values["num_key_value_heads"]
    by_layer = values.get("per_layer_config")
    if by_layer is None:
        has_fewer = values["attention_k_eq_v"]
        num_kv_heads = values.get("num_global_key_value_heads") if has_fewer else None
        return values.get("global_head_dim", 512) or own[0], num_kv_heads or own[1]
    shapes = {  # transformers 5.23: overrides for some layers, by index
        int(layer): (other.get("head_dim", own[0]), other.get("num_key_value_heads", own[1]))
        for layer, other in by_layer.items()
    }
    different = {layer: shape for layer, shape in shapes.items() if shape != own}
    if different and (sorted(different) != full_layers or len(set(different.values())) != 1):
        raise CheckpointError(
            f"config.json gives layers {sorted(different)} shapes of their own, which is not supported "
            f"(only one shape for all full layers, {full_layers})"
        )
    return next(iter(different.values()), own)
