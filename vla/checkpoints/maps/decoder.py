"""Where the weights of a language model in transformers' layout go in our Decoder: one table for all families.

Names are the same in Llama, Gemma 1 to 4 and Qwen2; a family has more or fewer of them, as its config says. Source:
transformers 5.5.4, models/{llama,gemma,gemma2,gemma3,gemma4,qwen2}/modeling_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from vla.checkpoints.keymap import (
    KeyMap,
    Table,
    prefixed,
    repeated,
    stacked,
    stacked_affine,
)
from vla.models.decoder_config import DecoderConfig, Head
from vla.nn.attention import KeysValues
from vla.nn.block import BlockConfig

UNREAD = ("*.rotary_emb.inv_freq",)  # older versions stored the frequencies

_NORMS = {
    "attention_norm.weight": "input_layernorm.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
}
_FOUR_NORMS = {  # Gemma 2 and later: the name of the second norm moves to the branch before it
    "attention_norm.weight": "input_layernorm.weight",
    "attention_post_norm.weight": "post_attention_layernorm.weight",
    "mlp_norm.weight": "pre_feedforward_layernorm.weight",
    "mlp_post_norm.weight": "post_feedforward_layernorm.weight",
}
_PER_LAYER = {
    "embedding.weight": "embed_tokens_per_layer.weight",
    "projection.weight": "per_layer_model_projection.weight",
    "norm.weight": "per_layer_projection_norm.weight",
}
_PER_LAYER_BLOCK = {
    "gates.{i}.weight": "layers.{i}.per_layer_input_gate.weight",
    "outputs.{i}.weight": "layers.{i}.per_layer_projection.weight",
    "post_norms.{i}.weight": "layers.{i}.post_per_layer_input_norm.weight",
}


def decoder_table(config: DecoderConfig, ours: str = "", theirs: str = "model.") -> Table:
    """Returns the entries of a decoder without its head.

    Args:
        config: says which weights there are, and how many rows belong to queries, keys and values.
        ours: what our names begin with, such as "decoder.".
        theirs: what their names begin with, such as "language_model.model.".
    """
    depth = config.depth
    table: Table = {
        "token_embedding.weight": "embed_tokens.weight",
        "final_norm.weight": "norm.weight",
    }
    for i in range(depth):
        table |= prefixed(f"layers.{i}.", f"layers.{i}.", _block_table(config.block(i)))
    if config.per_layer_width:
        table |= prefixed("per_layer.", "", _PER_LAYER)
        for our_name, their_name in _PER_LAYER_BLOCK.items():
            table |= repeated(f"per_layer.{our_name}", their_name, {"": ""}, depth)
    if config.has_layer_scalars:
        table["layer_scalars"] = stacked({f"layers.{i}.layer_scalar": 1 for i in range(depth)})
    return prefixed(ours, theirs, table)


def head_table(config: DecoderConfig, ours: str = "", theirs: str = "") -> Table:
    """Returns the entry of the head over the vocabulary, where the decoder has one of its own."""
    if config.head is Head.OWN:
        return {f"{ours}lm_head.weight": f"{theirs}lm_head.weight"}
    return {}


def tied_head(config: DecoderConfig, theirs: str = "model.", head: str = "") -> dict[str, str]:
    """Returns the `tied` of a KeyMap: a tied head may be stored once more. `head` is what its name begins with."""
    if config.head is Head.TIED:
        return {f"{head}lm_head.weight": f"{theirs}embed_tokens.weight"}
    return {}


def unread(config: DecoderConfig, theirs: str = "model.") -> list[str]:
    """Returns the `unread` of a KeyMap: what may lie beside the weights of a decoder."""
    shared = [i for i in range(config.depth) if config.is_shared(i)]
    return [
        *UNREAD,
        *(f"{theirs}layers.{i}.self_attn.[kv]_*.weight" for i in shared),  # keys nobody makes
    ]


def decoder_key_map(
    family: str, config: DecoderConfig, prefixes: Mapping[str, str] | None = None
) -> KeyMap:
    """Returns the map of a language model by itself, saved with or without its head.

    Args:
        family: what to call it in messages.
        config: of the decoder.
        prefixes: other spellings of "model." besides "" (saved without the head).
    """
    return KeyMap(
        family=family,
        table=decoder_table(config) | head_table(config),
        prefixes={"": "model.", "lm_head.": "lm_head.", **(prefixes or {})},
        unread=unread(config),
        tied=tied_head(config),
    )


def _block_table(block: BlockConfig) -> Table:
    attention = block.attention()
    projections = {
        KeysValues.OWN: ("k_proj", "v_proj"),
        KeysValues.TIED: ("k_proj",),
        KeysValues.SHARED: (),
    }
    rows = {"self_attn.q_proj": attention.num_heads * attention.head_dim}
    for name in projections[block.keys_values]:
        rows[f"self_attn.{name}"] = attention.num_kv_heads * attention.head_dim
    table: Table = {
        **(_FOUR_NORMS if block.has_post_norms else _NORMS),
        **stacked_affine("attention.qkv", rows, bias=block.qkv_bias),
        "attention.out.weight": "self_attn.o_proj.weight",
        "mlp.gate_up.weight": stacked(
            {"mlp.gate_proj.weight": block.mlp_width, "mlp.up_proj.weight": block.mlp_width}
        ),
        "mlp.down.weight": "mlp.down_proj.weight",
    }
    if block.has_qk_norm:
        table["attention.q_norm.weight"] = "self_attn.q_norm.weight"
        if block.keys_values is not KeysValues.SHARED:
            table["attention.k_norm.weight"] = "self_attn.k_norm.weight"
    return table
