"""Reading PaliGemma in transformers' layout: weights both ways, every spelling, config.json and parameter counts."""

import copy
import json
from typing import Any

import pytest
import torch
import transformers
from reference_paligemma import SMALL, Pair, first_paligemma, second_paligemma
from safetensors.torch import load_file

from vla.checkpoints.maps import paligemma
from vla.errors import CheckpointError
from vla.models.backbones import paligemma_config
from vla.models.backbones.paligemma import PaliGemma


@pytest.fixture(scope="module")
def pair() -> Pair:
    return first_paligemma()


@pytest.fixture(scope="module")
def paligemma2() -> PaliGemma:
    return second_paligemma()


def test_weights_go_there_and_back_bit_for_bit(pair, paligemma2):
    for model in (pair.ours, paligemma2):
        state, key_map = model.state_dict(), paligemma.key_map(model.config)
        again = key_map.convert(key_map.export(state), model)
        assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_the_exported_weights_are_the_reference_s(pair):
    exported = paligemma.key_map(pair.ours.config).export(pair.ours.state_dict())
    theirs = pair.theirs.state_dict()
    assert len(exported) == len(theirs) - 1  # the head is the embedding
    for name, tensor in exported.items():
        in_memory = "model." + name.replace("language_model.model.", "language_model.")
        assert torch.equal(tensor, theirs[in_memory])


SPELLINGS = {  # from transformers' names in memory
    "in memory": {},
    "hub": {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.": ""},
    "5.5.4 on disk": {"model.language_model.": "model.language_model.model."},
    "5.23 on disk": {
        "model.language_model.": "language_model.model.", "model.vision_tower.vision_model.": "vision_tower.",
        "model.": "",
    },
    "without the head": {"model.": "", "lm_head.": None},
    "5.23 in memory": {"model.vision_tower.vision_model.": "model.vision_tower."},
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_prefixes_is_taken(pair, spelling):
    weights = {}
    for name, tensor in pair.theirs.state_dict().items():
        prefix = next((old for old in SPELLINGS[spelling] if name.startswith(old)), "")
        new = SPELLINGS[spelling].get(prefix, "")
        if new is not None:
            weights[new + name.removeprefix(prefix)] = tensor
    converted = paligemma.key_map(pair.ours.config).convert(weights, pair.ours)
    assert all(torch.equal(converted[n], t) for n, t in pair.ours.state_dict().items())


def test_a_saved_reference_is_read_from_its_directory(pair, tmp_path):
    pair.theirs.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert paligemma.model_config(values) == pair.ours.config
    weights = load_file(tmp_path / "model.safetensors")
    converted = paligemma.key_map(pair.ours.config).convert(weights, pair.ours)
    assert all(torch.equal(converted[n], t) for n, t in pair.ours.state_dict().items())


def test_a_checkpoint_of_another_family_is_refused(pair):
    llama = transformers.LlamaConfig(**{**SMALL["text_config"], "model_type": "llama"})
    with pytest.raises(CheckpointError, match="model_type 'llama', expected paligemma"):
        paligemma.model_config(llama.to_dict())
    weights = transformers.LlamaForCausalLM(llama).state_dict()
    with pytest.raises(CheckpointError, match="not PaliGemma's"):
        paligemma.key_map(pair.ours.config).convert(weights, pair.ours)


def test_a_decoder_of_another_family_is_refused():
    values = {**SMALL, "text_config": {**SMALL["text_config"], "model_type": "llama"}}
    with pytest.raises(CheckpointError, match="model_type 'llama', expected gemma or gemma2"):
        paligemma.model_config(values)


# What convert_paligemma_weights_to_hf.py and convert_paligemma2_weights_to_hf.py write; 257152 tokens, and two more
# filled up to a multiple of 64.
RELEASED_VISION = {
    "model_type": "siglip_vision_model", "patch_size": 14, "hidden_size": 1152, "intermediate_size": 4304,
    "num_hidden_layers": 27, "num_attention_heads": 16, "projector_hidden_act": "gelu_fast", "vision_use_head": False,
}  # fmt: skip
RELEASED_TEXT: dict[str, dict[str, Any]] = {
    "paligemma_3b": {
        "model_type": "gemma", "vocab_size": 257216, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "head_dim": 256, "hidden_size": 2048, "num_attention_heads": 8, "intermediate_size": 16384,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "paligemma2_3b": {
        "model_type": "gemma2", "vocab_size": 257216, "num_hidden_layers": 26, "num_key_value_heads": 4,
        "head_dim": 256, "hidden_size": 2304, "num_attention_heads": 8, "intermediate_size": 9216,
        "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh",
    },
}  # fmt: skip
COUNTS = {
    ("paligemma_3b", 224): 2_923_466_480,
    ("paligemma_3b", 448): 2_924_351_216,
    ("paligemma_3b", 896): 2_927_890_160,
    ("paligemma2_3b", 224): 3_032_242_416,
    ("paligemma2_3b", 448): 3_033_127_152,
    ("paligemma2_3b", 896): 3_036_666_096,
}


@pytest.mark.parametrize(("name", "size"), COUNTS)
def test_a_released_config_gives_the_preset_and_the_reference_s_number_of_parameters(name, size):
    values = {
        "model_type": "paligemma",
        "image_token_index": 257152,
        "projection_dim": RELEASED_TEXT[name]["hidden_size"],
        "text_config": RELEASED_TEXT[name],
        "vision_config": {**RELEASED_VISION, "image_size": size},
    }
    preset = getattr(paligemma_config, name)(size)
    assert paligemma.model_config(values) == preset
    with torch.device("meta"):
        ours = PaliGemma(preset)
        theirs = transformers.PaliGemmaForConditionalGeneration(
            transformers.PaliGemmaConfig(**copy.deepcopy(values))
        )
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) == COUNTS[name, size]
    assert preset.num_image_tokens == {224: 256, 448: 1024, 896: 4096}[size]
