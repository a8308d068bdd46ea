"""config.json of the released Qwen2-VL checkpoints: our presets, and transformers' own count of parameters."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from vla.checkpoints.maps import qwen2_vl
from vla.errors import CheckpointError
from vla.models.backbones import qwen2_vl_config
from vla.models.backbones.qwen2_vl import Qwen2VL

# config.json of Qwen/Qwen2-VL-2B-Instruct and 7B-Instruct, what says something about the shape
RELEASED_VISION = {
    "depth": 32,
    "embed_dim": 1280,
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
}
RELEASED_TEXT: dict[str, Any] = {
    "model_type": "qwen2_vl",
    "hidden_act": "silu",
    "num_hidden_layers": 28,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "sliding_window": 32768,
    "use_sliding_window": False,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
RELEASED: dict[str, dict[str, Any]] = {
    "qwen2_vl_2b": {
        **RELEASED_TEXT,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
        "vision_config": {**RELEASED_VISION, "hidden_size": 1536},
    },
    "qwen2_vl_7b": {
        **RELEASED_TEXT,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
        "vision_config": {**RELEASED_VISION, "hidden_size": 3584},
    },
}
PRESETS = {"qwen2_vl_2b": qwen2_vl_config.qwen2_vl_2b, "qwen2_vl_7b": qwen2_vl_config.qwen2_vl_7b}
COUNTS = {"qwen2_vl_2b": 2_208_985_600, "qwen2_vl_7b": 8_291_375_616}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config_gives_the_preset_and_the_reference_s_number_of_parameters(name):
    preprocessor = {"min_pixels": 3136, "max_pixels": 12845056}
    assert qwen2_vl.model_config(RELEASED[name], preprocessor) == PRESETS[name]()
    with torch.device("meta"):
        ours = Qwen2VL(PRESETS[name]())
        theirs = transformers.Qwen2VLForConditionalGeneration(
            transformers.Qwen2VLConfig(**RELEASED[name])
        )
    assert _num_parameters(ours) == _num_parameters(theirs) == COUNTS[name]


def test_a_config_whose_parts_do_not_fit_is_refused():
    values = {**RELEASED["qwen2_vl_2b"], "vision_config": RELEASED["qwen2_vl_7b"]["vision_config"]}
    with pytest.raises(CheckpointError, match="tower end in 3584 channels and the language model"):
        qwen2_vl.model_config(values)


def test_bounds_on_pixels_are_read_in_both_spellings():
    older = {"min_pixels": 3136, "max_pixels": 12845056}
    newer = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}
    for preprocessor in (older, newer):
        config = qwen2_vl.model_config(RELEASED["qwen2_vl_2b"], preprocessor)
        assert (config.min_pixels, config.max_pixels) == (3136, 12845056)


def test_the_newer_spelling_gives_the_same_shape_as_the_older():
    for values in RELEASED.values():
        newer = transformers.Qwen2VLConfig(**values).to_dict()
        assert newer["text_config"]["hidden_size"] == values["hidden_size"]
        assert "hidden_size" not in newer
        assert qwen2_vl.model_config(newer) == qwen2_vl.model_config(values)


def test_a_neighbour_of_the_family_is_refused_by_name():
    with pytest.raises(CheckpointError, match="model_type 'qwen2_5_vl', expected qwen2_vl"):
        qwen2_vl.model_config({**RELEASED["qwen2_vl_7b"], "model_type": "qwen2_5_vl"})


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
