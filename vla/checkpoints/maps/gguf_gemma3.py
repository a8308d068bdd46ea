"""Gemma 3's text model in llama.cpp's layout: settings and weights.

Two things are not as in transformers' layout: the factor of each norm is stored whole, 1 + w, and what all Gemma 3 have
in common is not stored (every sixth layer is full; theta of the others). Queries and keys are not permuted, as those of
Llama are. Source: ggml-org/llama.cpp, convert_hf_to_gguf.py (Gemma3Model) and src/llama-model.cpp
(LLM_ARCH_GEMMA3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vla.checkpoints.keymap import KeyMap, Rule, Table, repeated, stacked
from vla.errors import CheckpointError
from vla.models.decoder_config import DecoderConfig, Head
from vla.nn.mlp import Activation
from vla.nn.norms import Norm

_FULL_EVERY = 6  # layers
_NEAR_ROPE_THETA = 10000.0


def decoder_config(settings: Mapping[str, Any], vocab_size: int) -> DecoderConfig:
    """Returns the shape that a file's settings describe.

    Args:
        settings: by their names in the file.
        vocab_size: rows of the token embedding; the file does not say.

    Raises:
        CheckpointError: a setting is missing, or is not supported.
    """

    def setting(name: str) -> Any:
        if f"gemma3.{name}" not in settings:
            raise CheckpointError(
                f"the file has no gemma3.{name}; make it again from the checkpoint"
            )
        return settings[f"gemma3.{name}"]

    scaling = settings.get("gemma3.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise CheckpointError(f"rope scaling of type {scaling!r} is not supported, only 'linear'")
    depth = setting("block_count")
    return DecoderConfig(
        vocab_size=vocab_size,
        width=setting("embedding_length"),
        depth=depth,
        num_heads=setting("attention.head_count"),
        num_kv_heads=setting("attention.head_count_kv"),
        head_dim=setting("attention.key_length"),
        mlp_width=setting("feed_forward_length"),
        activation=Activation.GELU_TANH,
        norm=Norm.RMS_OFFSET,
        norm_eps=setting("attention.layer_norm_rms_epsilon"),
        has_post_norms=True,
        has_qk_norm=True,
        head=Head.TIED,
        scales_embedding=True,
        window=setting("attention.sliding_window"),
        full_layers=list(range(_FULL_EVERY - 1, depth, _FULL_EVERY)),
        rope_theta=_NEAR_ROPE_THETA,
        full_rope_theta=setting("rope.freq_base"),
        full_rope_factor=settings.get("gemma3.rope.scaling.factor", 1.0),
        max_tokens=setting("context_length"),
    )


def key_map(config: DecoderConfig) -> KeyMap:
    """Returns the map of a Gemma 3 in a GGUF file."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    block: Table = {
        "attention_norm.weight": _factor("attn_norm.weight"),
        "attention.qkv.weight": stacked(
            {"attn_q.weight": queries, "attn_k.weight": keys, "attn_v.weight": keys}
        ),
        "attention.q_norm.weight": _factor("attn_q_norm.weight"),
        "attention.k_norm.weight": _factor("attn_k_norm.weight"),
        "attention.out.weight": "attn_output.weight",
        "attention_post_norm.weight": _factor("post_attention_norm.weight"),
        "mlp_norm.weight": _factor("ffn_norm.weight"),
        "mlp.gate_up.weight": stacked(
            {"ffn_gate.weight": config.mlp_width, "ffn_up.weight": config.mlp_width}
        ),
        "mlp.down.weight": "ffn_down.weight",
        "mlp_post_norm.weight": _factor("post_ffw_norm.weight"),
    }
    table: Table = {
        "token_embedding.weight": "token_embd.weight",
        "final_norm.weight": _factor("output_norm.weight"),
    }
    return KeyMap(
        family="Gemma 3 (GGUF)",
        table=table | repeated("layers.{i}.", "blk.{i}.", block, config.depth),
        tied={"output.weight": "token_embd.weight"},
        unread=("rope_freqs.weight",),
    )


def _factor(name: str) -> Rule:
    """A norm's factor, of which we hold what is above one; exact for weights that were trained in bf16."""

    def join(parts: list[Tensor]) -> Tensor:
        return parts[0] - 1

    return Rule((name,), join, lambda tensor: [tensor + 1])
