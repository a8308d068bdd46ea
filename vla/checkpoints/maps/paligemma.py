"""PaliGemma 1 and 2 in transformers' layout: config.json and weights.

Canonical names are the hub's own: `language_model.model.*`, `multi_modal_projector.*`, `vision_tower.vision_model.*`.
transformers 4.52 to 5 hold, and some save, all of it under `model.`; 5.23 drops `vision_model.`; some files repeat the
tied head. Source: transformers 5.5.4 and 5.23.0, models/paligemma, and convert_paligemma_weights_to_hf.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vla.checkpoints.keymap import KeyMap, Table, affine, prefixed
from vla.checkpoints.maps import gemma, settings
from vla.checkpoints.maps.decoder import decoder_table, tied_head, unread
from vla.checkpoints.maps.towers import encoder_tower
from vla.models.backbones.paligemma_config import PaliGemmaConfig
from vla.models.vision.presets import siglip_so400m_released
from vla.models.vision.vit_config import ViTConfig

_DECODER, _TOWER = "language_model.model.", "vision_tower.vision_model."
_PROJECTOR, _HEAD = "multi_modal_projector.", "language_model."


def key_map(config: PaliGemmaConfig) -> KeyMap:
    """Returns the map of a whole PaliGemma."""
    table: Table = prefixed("vision.", _TOWER, encoder_tower(config.tower))
    table |= affine("connector.projection", f"{_PROJECTOR}linear")
    table |= decoder_table(config.decoder, "decoder.", _DECODER)
    return KeyMap(
        family="PaliGemma",
        table=table,
        prefixes={
            "model.language_model.model.": _DECODER,
            "model.language_model.": _DECODER,
            "language_model.": _DECODER,  # saved without its head
            "language_model.lm_head.": f"{_HEAD}lm_head.",
            "model.language_model.lm_head.": f"{_HEAD}lm_head.",
            "lm_head.": f"{_HEAD}lm_head.",
            "model.vision_tower.vision_model.": _TOWER,
            "model.vision_tower.": _TOWER,
            "vision_tower.": _TOWER,
            "model.multi_modal_projector.": _PROJECTOR,
        },
        unread=[
            *unread(config.decoder, _DECODER),
            f"{_TOWER}embeddings.position_ids",  # 0, 1, 2, ...
            f"{_TOWER}head.*",  # the pooling head, which PaliGemma leaves out
        ],
        tied=tied_head(config.decoder, _DECODER, _HEAD),
    )


def model_config(values: Mapping[str, Any]) -> PaliGemmaConfig:
    """Returns the shape that config.json describes.

    Raises:
        CheckpointError: another family, or a setting that is not supported, by name.
    """
    settings.check_model_type(values, "paligemma")
    settings.required(values, "text_config")
    text = {"model_type": "gemma", **settings.text_settings(values)}
    settings.check_model_type(text, "gemma", "gemma2")
    settings.refuse(text, {"tie_word_embeddings": [True]})
    text.pop("use_bidirectional_attention", None)  # the prefix sees all of itself; so says the mask
    vision = settings.required(values, "vision_config")
    return PaliGemmaConfig(
        image_size=vision.get("image_size", 224),
        tower=_tower(vision),
        decoder=gemma.decoder_config(text),
        image_id=values.get("image_token_index", values.get("image_token_id", 256000)),
    )


def _tower(values: Mapping[str, Any]) -> ViTConfig:
    settings.check_model_type(values, "siglip_vision_model")
    settings.refuse(values, {"num_channels": [3]})
    return replace(
        siglip_so400m_released(has_attention_pool=False),
        patch_size=values.get("patch_size", 16),
        width=values.get("hidden_size", 768),
        depth=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 12),
        mlp_width=values.get("intermediate_size", 3072),
        activation=settings.activation(values.get("hidden_act", "gelu_pytorch_tanh")),
        norm_eps=values.get("layer_norm_eps", 1e-6),
    )
