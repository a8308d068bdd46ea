"""Released shapes of towers: as many parameters as the reference has on the meta device; presets equal configs."""

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from reference_towers import TowerWithMerger
from torch import nn

from vla.checkpoints.maps import clip, dinov2, siglip, siglip2
from vla.models import dual_encoder
from vla.models.connectors import MergeConnector
from vla.models.dual_encoder import DualEncoder
from vla.models.vision import presets
from vla.models.vision.vit import ViT


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def reference_sizes() -> dict[str, Any]:
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4VisionModel
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import (
        Qwen2VisionTransformerPretrainedModel,
    )

    so400m = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
    }
    large = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    siglip_vision = {**so400m, "image_size": 384, "patch_size": 14}
    return {
        "siglip": lambda: transformers.SiglipModel(
            transformers.SiglipConfig(
                text_config={**so400m, "projection_size": 1152}, vision_config=siglip_vision
            )
        ),
        "siglip2": lambda: transformers.Siglip2Model(
            transformers.Siglip2Config(
                text_config={"vocab_size": 256000, "projection_size": 768}, vision_config={}
            )
        ),
        "clip": lambda: transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={
                    "hidden_size": 768,
                    "intermediate_size": 3072,
                    "num_attention_heads": 12,
                },
                vision_config={**large, "patch_size": 14},
                projection_dim=768,
            )
        ),
        "dinov2": lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                patch_size=14,
                image_size=518,
            )
        ),
        "qwen2_vl": lambda: Qwen2VisionTransformerPretrainedModel(
            Qwen2VLVisionConfig(hidden_size=1536)
        ),
        "gemma4 small": lambda: Gemma4VisionModel(Gemma4VisionConfig(use_clipped_linears=True)),
        "gemma4 large": lambda: Gemma4VisionModel(
            Gemma4VisionConfig(**so400m, num_key_value_heads=16, head_dim=72, standardize=True)
        ),
    }


OUR_SIZES = {
    "siglip": lambda: DualEncoder(dual_encoder.siglip_so400m()),
    "siglip2": lambda: DualEncoder(dual_encoder.siglip2_base_naflex()),
    "clip": lambda: DualEncoder(dual_encoder.clip_vit_l_14()),
    "dinov2": lambda: ViT(presets.dinov2_large_reg4_released(), 518),
    "qwen2_vl": lambda: TowerWithMerger(ViT(presets.qwen2_vl_tower()), MergeConnector(1280, 1536)),
    "gemma4 small": lambda: ViT(presets.gemma4_tower_small()),
    "gemma4 large": lambda: ViT(presets.gemma4_tower_large()),
}


@pytest.mark.parametrize("name", OUR_SIZES)
def test_a_released_shape_has_as_many_parameters_as_the_reference(name):
    with torch.device("meta"):
        ours, theirs = OUR_SIZES[name](), reference_sizes()[name]()
    assert num_parameters(ours) == num_parameters(theirs)


def test_presets_are_what_the_readers_make_of_the_released_configs():
    references = reference_sizes()
    with torch.device("meta"):
        values = {
            name: references[name]().config.to_dict()
            for name in ("siglip", "siglip2", "clip", "dinov2")
        }
    assert siglip.model_config(values["siglip"]) == dual_encoder.siglip_so400m()
    assert siglip2.model_config(values["siglip2"]) == dual_encoder.siglip2_base_naflex()
    read, preset = clip.model_config(values["clip"]), dual_encoder.clip_vit_l_14()
    assert (read.vision, read.text) == (preset.vision, preset.text)
    assert read.log_temperature == pytest.approx(preset.log_temperature, abs=1e-4)
    tower = dataclasses.replace(dinov2.tower_config(values["dinov2"]), layer_scale=1e-5)
    assert tower == presets.dinov2_large_reg4_released()
