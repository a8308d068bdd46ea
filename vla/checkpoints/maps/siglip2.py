"""SigLIP2 NaFlex (pictures of any shape) in transformers' layout: config.json and weights.

Source: transformers 5.5.4, models/siglip2. Checkpoints of SigLIP2 for pictures of one size are SigLIP's (`siglip`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vla.checkpoints.keymap import KeyMap, prefixed
from vla.checkpoints.maps import settings, siglip
from vla.checkpoints.maps.towers import encoder_tower
from vla.models.dual_encoder import DualEncoderConfig
from vla.models.vision.vit_config import Resampling, ViTConfig


def tower_config(values: Mapping[str, Any]) -> ViTConfig:
    """Returns the tower that config.json, or its `vision_config`, describes."""
    return replace(siglip.tower_config(values), resampling=Resampling.BILINEAR)


def image_size(values: Mapping[str, Any]) -> int:
    """Returns the side of the picture whose patches the position table has, for `ViT`."""
    values = values.get("vision_config", values)
    return math.isqrt(values.get("num_patches", 256)) * values.get("patch_size", 16)


def model_config(values: Mapping[str, Any]) -> DualEncoderConfig:
    """Returns both towers that config.json describes."""
    settings.check_model_type(values, "siglip2")
    vision = values.get("vision_config", {})
    return siglip.paired(tower_config(vision), image_size(vision), values)


def tower_key_map(config: ViTConfig) -> KeyMap:
    """Returns the map of the pictures' tower by itself."""
    return KeyMap(
        family="SigLIP2's tower",
        table=prefixed("", "vision_model.", encoder_tower(config, has_linear_patches=True)),
        prefixes={"": "vision_model."},
    )


def key_map(config: DualEncoderConfig) -> KeyMap:
    """Returns the map of both towers."""
    return siglip.paired_key_map("SigLIP2", config, has_linear_patches=True)
