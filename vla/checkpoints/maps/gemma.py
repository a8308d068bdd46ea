"""Gemma 1, 2 and 3 (its text model) in transformers' layout: config.json and weights.

Source: transformers 5.5.4, models/{gemma,gemma2,gemma3}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap
from vla.checkpoints.maps import settings
from vla.checkpoints.maps.decoder import decoder_key_map
from vla.errors import CheckpointError
from vla.models.decoder_config import DecoderConfig
from vla.nn.mlp import Activation
from vla.nn.norms import Norm

# What config.json may leave out, as transformers fills it in.
_DEFAULTS = {
    "gemma": {
        "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 8192,
    },
    "gemma2": {
        "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 8192,
        "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
    },
    "gemma3_text": {
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 131072,
    },
}  # fmt: skip


def decoder_config(values: Mapping[str, Any]) -> DecoderConfig:
    """Returns the shape that config.json describes; raises CheckpointError for what is not supported, by name."""
    settings.check_model_type(values, *_DEFAULTS, "gemma3")
    values = settings.text_settings(values)
    generation = {"gemma": 1, "gemma2": 2, "gemma3_text": 3}[
        values.get("model_type", "gemma3_text")
    ]
    values = {**list(_DEFAULTS.values())[generation - 1], **values}
    settings.refuse(
        values, {"attention_bias": [False], "use_bidirectional_attention": [None, False]}
    )
    _check_activation(values)
    config = DecoderConfig(
        vocab_size=values["vocab_size"],
        width=values["hidden_size"],
        depth=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        num_kv_heads=values["num_key_value_heads"],
        head_dim=values.get("head_dim", 256),
        mlp_width=values["intermediate_size"],
        activation=Activation.GELU_TANH,
        norm_eps=values.get("rms_norm_eps", 1e-6),
        norm=Norm.RMS_OFFSET,
        head=settings.head(values, is_tied=True),
        scales_embedding=True,
        max_tokens=values["max_position_embeddings"],
    )
    if generation == 1:
        config.rope_theta = settings.plain_theta(values, 10000.0)
        return config
    config.has_post_norms = True
    config.attention_scale = values.get("query_pre_attn_scalar", 256) ** -0.5
    config.attention_softcap = values.get("attn_logit_softcapping")
    config.final_softcap = values.get("final_logit_softcapping")
    config.window = values.get("sliding_window", 4096)
    pattern = {2: 2, 3: 6}[generation]
    config.full_layers = settings.full_layers(values, config.depth, pattern)
    if generation == 2:
        config.rope_theta = settings.plain_theta(values, 10000.0)
        return config
    config.has_qk_norm = True
    _set_two_thetas(config, values)
    return config


def key_map(config: DecoderConfig) -> KeyMap:
    """Returns the map of a Gemma by itself."""
    return decoder_key_map("Gemma", config)


def _set_two_thetas(config: DecoderConfig, values: Mapping[str, Any]) -> None:
    """Gemma 3: windowed layers turn faster, and full ones may see their positions divided."""
    full = settings.rope(values, "full_attention")
    settings.refuse(
        full, {"rope_type": ["default", "linear"], "partial_rotary_factor": [1.0, None]}
    )
    config.full_rope_theta = float(full.get("rope_theta", 1e6))
    config.full_rope_factor = float(full.get("factor") or 1.0)
    config.rope_theta = float(values.get("rope_local_base_freq") or 10000.0)
    if "sliding_attention" in (values.get("rope_parameters") or {}):
        near = {**values, "rope_theta": config.rope_theta}
        config.rope_theta = settings.plain_theta(near, config.rope_theta, "sliding_attention")


def _check_activation(values: Mapping[str, Any]) -> None:
    """All Gemmas use the tanh form; the first configs on the hub say "gelu" and mean it."""
    name = values.get("hidden_activation") or values.get("hidden_act") or "gelu_pytorch_tanh"
    if name not in ("gelu", "gelu_pytorch_tanh"):
        raise CheckpointError(
            f"config.json asks for activation {name!r}; a Gemma has gelu_pytorch_tanh"
        )
