"""Qwen2-VL in transformers' layout: config.json and weights.

Canonical names are the hub's own: `visual.*`, `model.*`, `lm_head.weight`. transformers 4.52 to 5 hold, and some save,
`model.visual.*` and `model.language_model.*`. Source: transformers 5.5.4, models/qwen2_vl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vla.checkpoints.keymap import KeyMap, Table, affine, prefixed
from vla.checkpoints.maps import qwen2, settings
from vla.checkpoints.maps.decoder import decoder_table, head_table, tied_head, unread
from vla.checkpoints.maps.towers import qwen2_vl_tower
from vla.errors import CheckpointError
from vla.models.backbones.qwen2_vl_config import Qwen2VLConfig
from vla.models.vision.presets import CLIP_MEAN, CLIP_STD
from vla.models.vision.vit_config import Positions, ViTConfig

_MERGER: Table = {
    **affine("norm", "ln_q"),
    **affine("up", "mlp.0"),
    **affine("down", "mlp.2"),
}
_TEXT_DEFAULTS = {  # Qwen2VLTextConfig, where it differs from Qwen2Config
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_window_layers": 80,
    "rms_norm_eps": 1e-5,
}
_THETA = 1e6


def key_map(config: Qwen2VLConfig) -> KeyMap:
    """Returns the map of a whole Qwen2-VL."""
    table: Table = prefixed("vision.", "visual.", qwen2_vl_tower(config.tower))
    table |= prefixed("connector.", "visual.merger.", _MERGER)
    table |= decoder_table(config.decoder, "decoder.") | head_table(config.decoder, "decoder.")
    return KeyMap(
        family="Qwen2-VL",
        table=table,
        prefixes={
            "model.visual.": "visual.",
            "model.language_model.": "model.",
            "language_model.": "model.",  # saved without its head
        },
        unread=[*unread(config.decoder), "visual.rotary_pos_emb.inv_freq"],
        tied=tied_head(config.decoder),
    )


def model_config(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> Qwen2VLConfig:
    """Returns the shape that config.json describes.

    Args:
        values: config.json, with the language model's settings on top (as on the hub) or under `text_config`.
        preprocessor: preprocessor_config.json, for the bounds on pixels; None leaves the defaults.

    Raises:
        CheckpointError: another family, or a setting that is not supported, by name.
    """
    settings.check_model_type(values, "qwen2_vl")
    text = {**_TEXT_DEFAULTS, **settings.text_settings(values), "model_type": "qwen2_vl_text"}
    if "rope_theta" not in settings.rope(text):
        text["rope_theta"] = _THETA
    decoder = qwen2.decoder_config(text)
    vision = settings.required(values, "vision_config")
    if vision.get("hidden_size", 3584) != decoder.width:
        raise CheckpointError(
            f"config.json lets the tower end in {vision.get('hidden_size', 3584)} channels and the language model "
            f"begin with {decoder.width}; copy it again from the checkpoint"
        )
    config = Qwen2VLConfig(
        tower=_tower(vision),
        decoder=decoder,
        merge_size=vision.get("spatial_merge_size", 2),
        image_id=values.get("image_token_id", 151655),
        video_id=values.get("video_token_id", 151656),
    )
    return replace(config, **_pixel_bounds(preprocessor or {}))


def _tower(values: Mapping[str, Any]) -> ViTConfig:
    settings.refuse(values, {"in_channels": [3], "in_chans": [3]})
    width = values.get("embed_dim", 1280)
    return ViTConfig(
        patch_size=_side(values.get("patch_size", 14)),
        width=width,
        depth=values.get("depth", 32),
        num_heads=values.get("num_heads", 16),
        mlp_width=int(width * values.get("mlp_ratio", 4)),
        activation=settings.activation(values.get("hidden_act", "quick_gelu")),
        has_class_token=False,
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        num_frames=_side(values.get("temporal_patch_size", 2)),
        has_patch_bias=False,
        positions=Positions.NONE,
        rope_theta=10000.0,
        pixel_mean=list(CLIP_MEAN),
        pixel_std=list(CLIP_STD),
    )


def _side(size: int | list[int]) -> int:
    """The length of a window: some versions write it once for each axis."""
    lengths = {size} if isinstance(size, int) else set(size)
    if len(lengths) > 1:
        raise CheckpointError(f"config.json has patches of {size}; only squares are supported")
    return lengths.pop()


def _pixel_bounds(values: Mapping[str, Any]) -> dict[str, int]:
    """What preprocessor_config.json says of the pixels of a picture, in the older spelling or the newer (`size`)."""
    size = values.get("size") or {}
    found = {
        "min_pixels": values.get("min_pixels", size.get("min_pixels", size.get("shortest_edge"))),
        "max_pixels": values.get("max_pixels", size.get("max_pixels", size.get("longest_edge"))),
    }
    return {name: pixels for name, pixels in found.items() if pixels is not None}
