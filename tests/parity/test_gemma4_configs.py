"""Reading Gemma 4 in transformers' layout: weights both ways, every spelling, config.json and parameter counts."""

import copy
import json
from typing import Any

import pytest
import torch
import transformers
from reference_gemma4 import FORMS, SMALL, Pair, Prompts, e2b_like
from safetensors.torch import load_file

from vla.checkpoints.maps import gemma4
from vla.errors import CheckpointError
from vla.models.backbones import gemma4_config
from vla.models.backbones.gemma4 import Gemma4


@pytest.fixture(scope="module")
def pair() -> Pair:
    return e2b_like()


@pytest.fixture(scope="module", params=FORMS, ids=str)
def form(request) -> tuple[Gemma4, Prompts]:
    return FORMS[request.param]()


def test_weights_go_there_and_back_bit_for_bit(form):
    model, _ = form
    state, key_map = model.state_dict(), gemma4.key_map(model.config)
    again = key_map.convert(key_map.export(state), model)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_the_exported_weights_are_the_reference_s(pair):
    exported = gemma4.key_map(pair.ours.config).export(pair.ours.state_dict())
    theirs = {n: t for n, t in pair.theirs.state_dict().items() if n != "lm_head.weight"}
    assert exported.keys() == theirs.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize("spelling", ["hub", "in memory", "without the head"])
def test_every_spelling_of_the_prefixes_is_taken(form, spelling):
    model, _ = form
    weights = gemma4.key_map(model.config).export(model.state_dict())
    if spelling == "hub":
        weights["lm_head.weight"] = model.decoder.token_embedding.weight
    else:  # as 5.23 holds it
        weights = {_in_memory(name, model): tensor for name, tensor in weights.items()}
    if spelling == "without the head":
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    converted = gemma4.key_map(model.config).convert(weights, model)
    assert all(torch.equal(converted[n], t) for n, t in model.state_dict().items())


def _in_memory(name: str, model: Gemma4) -> str:
    if model.config.tower is not None:
        return name
    name = name.replace("embed_vision.embedding", "embed_vision.multimodal_embedder.embedding")
    return name.replace("vision_embedder.", "embed_vision.")


def test_a_saved_reference_is_read_from_its_directory(pair, tmp_path):
    pair.theirs.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert gemma4.model_config(values) == pair.ours.config
    weights = load_file(tmp_path / "model.safetensors")
    converted = gemma4.key_map(pair.ours.config).convert(weights, pair.ours)
    assert all(torch.equal(converted[n], t) for n, t in pair.ours.state_dict().items())


def test_audio_weights_are_passed_over_and_keys_nobody_makes_too(pair):
    weights = gemma4.key_map(pair.ours.config).export(pair.ours.state_dict())
    weights["model.audio_tower.layers.0.norm_out.weight"] = torch.zeros(3)
    weights["model.embed_audio.embedding_projection.weight"] = torch.zeros(3, 3)
    weights["model.language_model.layers.5.self_attn.k_proj.weight"] = torch.zeros(3)
    converted = gemma4.key_map(pair.ours.config).convert(weights, pair.ours)
    assert converted.keys() == pair.ours.state_dict().keys()


def test_experts_are_refused_by_name():
    values = {**SMALL, "text_config": {**SMALL["text_config"], "enable_moe_block": True}}
    with pytest.raises(CheckpointError, match="enable_moe_block = True, which is not supported"):
        gemma4.model_config(values)


def test_a_checkpoint_of_another_family_is_refused(pair):
    llama = transformers.LlamaConfig(**{**SMALL["text_config"], "model_type": "llama"})
    with pytest.raises(CheckpointError, match="model_type 'llama', expected gemma4 or"):
        gemma4.model_config(llama.to_dict())
    weights = transformers.LlamaForCausalLM(llama).state_dict()
    with pytest.raises(CheckpointError, match="not Gemma 4's"):
        gemma4.key_map(pair.ours.config).convert(weights, pair.ours)


def test_the_spatial_form_has_no_checkpoint_in_the_hub_s_layout():
    with pytest.raises(CheckpointError, match="no checkpoint in transformers' layout turns by"):
        gemma4.key_map(gemma4_config.tiny_gemma4_spatial())


# What convert_gemma4_weights.py and convert_gemma4_unified_weights.py write; the rest are defaults.
FIVE = ["sliding_attention"] * 5 + ["full_attention"]
SMALL_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16, "num_attention_heads": 12,
    "num_key_value_heads": 12, "head_dim": 64, "pooling_kernel_size": 3, "use_clipped_linears": True,
}  # fmt: skip
LARGE_TOWER = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "head_dim": 72, "pooling_kernel_size": 3, "standardize": True,
}  # fmt: skip
RELEASED: dict[str, dict[str, Any]] = {
    "gemma4_e2b": {
        "model_type": "gemma4",
        "vision_config": SMALL_TOWER,
        "text_config": {
            "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35,
            "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7, "num_attention_heads": 8,
            "num_key_value_heads": 1, "num_kv_shared_layers": 20, "use_double_wide_mlp": True,
            "final_logit_softcapping": 30.0,
        },
    },
    "gemma4_e4b": {
        "model_type": "gemma4",
        "vision_config": SMALL_TOWER,
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42, "layer_types": FIVE * 7,
            "num_attention_heads": 8, "num_key_value_heads": 2, "num_kv_shared_layers": 18,
            "final_logit_softcapping": 30.0,
        },
    },
    "gemma4_31b": {
        "model_type": "gemma4",
        "vision_config": LARGE_TOWER,
        "text_config": {
            "hidden_size": 5376, "hidden_size_per_layer_input": 0, "intermediate_size": 21504,
            "num_hidden_layers": 60, "layer_types": FIVE * 10, "num_attention_heads": 32,
            "num_key_value_heads": 16, "num_global_key_value_heads": 4, "attention_k_eq_v": True,
            "use_bidirectional_attention": "vision", "sliding_window": 1024, "final_logit_softcapping": 30.0,
            "max_position_embeddings": 262144,
        },
    },
    "gemma4_12b_unified": {
        "model_type": "gemma4_unified",
        "vision_config": {"patch_size": 16, "pooling_kernel_size": 3, "mm_embed_dim": 3840, "mm_posemb_size": 1120},
        "text_config": {
            "model_type": "gemma4_unified_text", "hidden_size": 3840, "intermediate_size": 15360,
            "num_hidden_layers": 48, "layer_types": FIVE * 8, "num_attention_heads": 16,
            "num_key_value_heads": 8, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
            "use_bidirectional_attention": "vision", "sliding_window": 1024, "final_logit_softcapping": 30.0,
            "hidden_size_per_layer_input": 0, "max_position_embeddings": 262144,
        },
    },
}  # fmt: skip
COUNTS = {  # without audio: a tower and its projection, 307,183,904 in E2B, and 2,457,600 in the 12B
    "gemma4_e2b": 4_797_113_600,
    "gemma4_e4b": 7_632_344_064,
    "gemma4_31b": 31_273_086_512,
    "gemma4_12b_unified": 11_957_272_576,  # as counted in transformers 5.23.0
}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config_gives_the_preset_and_the_reference_s_number_of_parameters(name):
    preset = getattr(gemma4_config, name)()
    assert gemma4.model_config(RELEASED[name]) == preset
    with torch.device("meta"):
        ours = Gemma4(preset)
    assert sum(p.numel() for p in ours.parameters()) == COUNTS[name]
    if name != "gemma4_12b_unified":  # 5.5.4 does not know it
        with torch.device("meta"):
            theirs = transformers.Gemma4ForConditionalGeneration(
                transformers.Gemma4Config(**copy.deepcopy(RELEASED[name]))
            )
        assert sum(p.numel() for p in theirs.parameters()) == COUNTS[name]


def test_a_unified_config_that_leaves_defaults_out_means_them():
    values = copy.deepcopy(RELEASED["gemma4_12b_unified"])
    for default in ("sliding_window", "use_bidirectional_attention", "max_position_embeddings"):
        del values["text_config"][default]
    values["vision_config"] = {}
    assert gemma4.model_config(values) == gemma4_config.gemma4_12b_unified()
