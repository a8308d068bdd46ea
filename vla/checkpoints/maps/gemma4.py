"""Gemma 4 in transformers' layout, with an encoder (`gemma4`) and woven (`gemma4_unified`): config.json and weights.

Canonical names are the hub's own: `model.language_model.*`, `model.vision_tower.*` or `model.vision_embedder.*`, and
`model.embed_vision.*`. In memory transformers 5.23 has the woven form's patch embedding under `model.embed_vision.`.
Files saved without the head lack `model.`.

Left out: experts, which are refused by name; and audio, whose weights are passed over (`LEFT_OUT`).
Source: transformers 5.5.4 models/gemma4; 5.23.0 models/gemma4_unified and conversion_mapping.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vla.checkpoints.keymap import KeyMap, Table, affine, prefixed
from vla.checkpoints.maps import gemma4_text, settings
from vla.checkpoints.maps.decoder import decoder_table, tied_head, unread
from vla.checkpoints.maps.towers import gemma4_tower
from vla.errors import CheckpointError
from vla.models.backbones.gemma4_config import Gemma4Config, PictureAttention
from vla.models.vision.presets import gemma4_tower_small
from vla.models.vision.vit_config import ViTConfig

LEFT_OUT = ("model.audio_tower.*", "model.embed_audio.*")

_DECODER, _TOWER, _PROJECTION = (
    "model.language_model.",
    "model.vision_tower.",
    "model.embed_vision.",
)
_PATCHES = "model.vision_embedder."  # of the woven form

_RAW_PATCHES: Table = {
    **affine("pixel_norm", "patch_ln1"),
    **affine("projection", "patch_dense"),
    **affine("patch_norm", "patch_ln2"),
    "axis_tables": "pos_embedding",
    **affine("place_norm", "pos_norm"),
}
_POOL: Table = {"shift": "std_bias", "gain": "std_scale"}


def key_map(config: Gemma4Config) -> KeyMap:
    """Returns the map of a whole Gemma 4; raises CheckpointError for a form that was never released."""
    if config.spatial_start is not None or not config.has_projection:
        raise CheckpointError(
            "no checkpoint in transformers' layout turns by time, row and column, or lacks the projection; "
            "set spatial_start=null and has_projection=true, or read a native checkpoint"
        )
    table = decoder_table(config.decoder, "decoder.", _DECODER)
    table |= affine("connector.projection", f"{_PROJECTION}embedding_projection", bias=False)
    if config.tower is None:
        table |= prefixed("vision.", _PATCHES, _RAW_PATCHES)
    else:
        table |= prefixed("vision.", _TOWER, gemma4_tower(config.tower))
        if config.is_standardised:
            table |= prefixed("connector.pool.", _TOWER, _POOL)
    in_memory = {
        f"{_PROJECTION}patch_": f"{_PATCHES}patch_",
        f"{_PROJECTION}pos_": f"{_PATCHES}pos_",
        f"{_PROJECTION}multimodal_embedder.": _PROJECTION,
    }
    canonical = {name: name for name in (_DECODER, _TOWER, _PROJECTION, _PATCHES)}
    audio = {pattern.removesuffix("*"): pattern.removesuffix("*") for pattern in LEFT_OUT}
    spellings = canonical | in_memory | audio
    return KeyMap(
        family="Gemma 4",
        table=table,
        prefixes=spellings | {k.removeprefix("model."): v for k, v in spellings.items()},
        unread=[*unread(config.decoder, _DECODER), *LEFT_OUT],
        tied=tied_head(config.decoder, _DECODER),
    )


def model_config(values: Mapping[str, Any]) -> Gemma4Config:
    """Returns the shape that config.json describes, without audio.

    Raises:
        CheckpointError: another family, or a setting that is not supported, such as experts, by name.
    """
    settings.check_model_type(values, "gemma4", "gemma4_unified")
    is_unified = values.get("model_type") == "gemma4_unified"
    settings.required(values, "text_config")
    kind = "gemma4_unified_text" if is_unified else "gemma4_text"
    text = {"model_type": kind, **settings.text_settings(values)}
    settings.refuse(text, {"tie_word_embeddings": [True]})
    vision = settings.required(values, "vision_config")
    config = Gemma4Config(
        decoder=gemma4_text.decoder_config(text),
        pool_size=vision.get("pooling_kernel_size", 3),
        image_id=values.get("image_token_id", 258880),
        pad_id=text.get("pad_token_id") or 0,
        token_budget=values.get("vision_soft_tokens_per_image", vision.get("num_soft_tokens", 280)),
    )
    default = "vision" if is_unified else None
    if text.get("use_bidirectional_attention", default) is None:
        config.picture_attention = PictureAttention.CAUSAL
    if not is_unified:
        config.tower = _tower(vision)
        config.is_standardised = vision.get("standardize", False)
        return config
    config.patch_width = vision.get("mm_embed_dim", 3840)
    settings.refuse(
        vision, {"output_proj_dims": [config.patch_width, None], "rms_norm_eps": [1e-6]}
    )
    config.patch_size = vision.get("patch_size", 16) * config.pool_size
    config.num_axis_positions = vision.get("mm_posemb_size", 1120)
    return config


def _tower(values: Mapping[str, Any]) -> ViTConfig:
    width, num_heads = values.get("hidden_size", 768), values.get("num_attention_heads", 12)
    settings.refuse(
        values,
        {
            "attention_bias": [False, None],
            "head_dim": [width // num_heads],
            "num_key_value_heads": [num_heads],
            "rms_norm_eps": [1e-6],
        },
    )
    rope = settings.rope(values)
    settings.refuse(rope, {"rope_type": ["default", "axial"]})
    return replace(
        gemma4_tower_small(),
        patch_size=values.get("patch_size", 16),
        width=width,
        depth=values.get("num_hidden_layers", 16),
        num_heads=num_heads,
        mlp_width=values.get("intermediate_size", 3072),
        activation=settings.activation(values.get("hidden_activation", "gelu_pytorch_tanh")),
        num_axis_positions=values.get("position_embedding_size", 10240),
        rope_theta=float(rope.get("rope_theta", 100.0)),
        has_clipped_linears=values.get("use_clipped_linears", False),
    )
