"""config.json to DecoderConfig: the hub's older spelling, transformers 5's, and what is refused.

Hub configs are written out as far as they matter for the shape, as public code quotes them: no file of the hub was at
hand when they were written.
"""

from typing import Any

import pytest
import transformers

from vla.checkpoints.maps import gemma, gemma4_text, llama, qwen2
from vla.errors import CheckpointError
from vla.models import decoder_presets
from vla.models.decoder_config import Head
from vla.nn.mlp import Activation

LLAMA_2_7B = {  # meta-llama/Llama-2-7b-hf
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu",
    "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False, "max_position_embeddings": 4096,
}  # fmt: skip
PALIGEMMA_TEXT = {  # text_config of google/paligemma-3b-pt-224: the rest are defaults
    "model_type": "gemma", "vocab_size": 257216, "hidden_size": 2048, "intermediate_size": 16384,
    "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "num_image_tokens": 256,
}  # fmt: skip
PALIGEMMA_2_TEXT = {  # text_config of google/paligemma2-3b-pt-224
    "model_type": "gemma2", "vocab_size": 257216, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "rope_theta": 10000.0,
}  # fmt: skip
GEMMA_3_270M = {  # google/gemma-3-270m
    "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048,
    "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    "sliding_window": 512, "_sliding_window_pattern": 6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
    "rope_scaling": None, "query_pre_attn_scalar": 256, "max_position_embeddings": 32768,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
    "attn_logit_softcapping": None, "final_logit_softcapping": None, "use_bidirectional_attention": False,
}  # fmt: skip
QWEN2_VL_2B = {  # Qwen/Qwen2-VL-2B-Instruct: the language model's settings lie on top
    "model_type": "qwen2_vl", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
    "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "hidden_act": "silu",
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 28,
    "max_position_embeddings": 32768,
}  # fmt: skip
GEMMA_3_4B_TEXT = {  # text_config of google/gemma-3-4b-it: positions of full layers are divided by 8
    "model_type": "gemma3_text", "vocab_size": 262208, "hidden_size": 2560, "intermediate_size": 10240,
    "num_hidden_layers": 34, "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
}  # fmt: skip


def test_the_hub_s_configs_give_the_presets():
    found = llama.decoder_config(LLAMA_2_7B)
    expected = decoder_presets.llama2_7b(32000)
    expected.head, expected.norm_eps = Head.OWN, 1e-5  # OpenVLA's config leaves it at the default
    assert found == expected
    assert gemma.decoder_config(PALIGEMMA_TEXT) == decoder_presets.gemma_2b()
    assert gemma.decoder_config(PALIGEMMA_2_TEXT) == decoder_presets.gemma2_2b()
    assert gemma.decoder_config(GEMMA_3_270M) == decoder_presets.gemma3_270m()
    assert qwen2.decoder_config(QWEN2_VL_2B) == decoder_presets.qwen2_1_5b()


@pytest.mark.parametrize(
    ("reader", "values", "make"),
    [
        (llama, LLAMA_2_7B, transformers.LlamaConfig),
        (gemma, PALIGEMMA_TEXT, transformers.GemmaConfig),
        (gemma, PALIGEMMA_2_TEXT, transformers.Gemma2Config),
        (gemma, GEMMA_3_270M, transformers.Gemma3TextConfig),
        (gemma, GEMMA_3_4B_TEXT, transformers.Gemma3TextConfig),
        (qwen2, QWEN2_VL_2B, transformers.Qwen2VLConfig),
    ],
)
def test_a_config_that_transformers_5_saves_again_means_the_same(reader, values, make):
    given = {name: value for name, value in values.items() if name != "model_type"}
    again = make(**given).to_dict()
    assert again != values
    assert reader.decoder_config(again) == reader.decoder_config(values)


def test_gemma_3_divides_positions_in_full_layers_alone():
    config = gemma.decoder_config(GEMMA_3_4B_TEXT)
    assert config.full_layers == [5, 11, 17, 23, 29]
    assert (config.full_rope_theta, config.full_rope_factor) == (1e6, 8.0)
    assert (config.rope_theta, config.rope(0).factor) == (10000.0, 1.0)


def test_a_config_half_way_between_the_spellings_keeps_its_two_thetas():
    """Seen in the wild: thetas on top, the kinds of scaling below."""
    values = {k: v for k, v in GEMMA_3_4B_TEXT.items() if k != "rope_scaling"} | {
        "rope_theta": 500000.0,
        "rope_local_base_freq": 5000.0,
        "rope_parameters": {
            "full_attention": {"factor": 8.0, "rope_type": "linear"},
            "sliding_attention": {"rope_type": "default"},
        },
    }
    config = gemma.decoder_config(values)
    assert (config.full_rope_theta, config.full_rope_factor) == (500000.0, 8.0)
    assert config.rope_theta == 5000.0


def test_the_older_pattern_says_which_layers_are_full():
    config = gemma.decoder_config({**GEMMA_3_4B_TEXT, "sliding_window_pattern": 4})
    assert config.full_layers[:3] == [3, 7, 11]


@pytest.mark.parametrize("name", ["gelu", "gelu_pytorch_tanh", None])
def test_a_gemma_that_says_gelu_means_the_tanh_form(name):
    values = {**PALIGEMMA_TEXT, "hidden_act": name, "hidden_activation": None}
    assert gemma.decoder_config(values).activation is Activation.GELU_TANH


def test_a_shape_for_full_layers_may_be_given_layer_by_layer():
    """transformers 5.23 writes overrides by index where 5.5 wrote `global_head_dim`."""
    types = ["sliding_attention", "full_attention"] * 2
    older = {
        "model_type": "gemma4_text", "num_hidden_layers": 4, "layer_types": types, "global_head_dim": 512,
        "num_global_key_value_heads": 2, "attention_k_eq_v": True,
    }  # fmt: skip
    override = {"head_dim": 512, "num_key_value_heads": 2}
    newer = {k: v for k, v in older.items() if "global" not in k}
    newer["per_layer_config"] = {"1": override, "3": override}
    assert gemma4_text.decoder_config(newer) == gemma4_text.decoder_config(older)
    newer["per_layer_config"] = {"1": override, "2": override}
    with pytest.raises(CheckpointError, match=r"gives layers \[1, 2\] shapes of their own"):
        gemma4_text.decoder_config(newer)


def test_the_unified_gemma_4_has_other_defaults():
    config = gemma4_text.decoder_config({"model_type": "gemma4_unified_text"})
    assert (config.window, config.per_layer_width, config.max_tokens) == (1024, 0, 262144)
    assert gemma4_text.decoder_config({"model_type": "gemma4_text"}).per_layer_width == 256


def test_a_model_of_words_and_pictures_says_on_top_whether_the_head_is_tied():
    values = {
        "model_type": "qwen2_vl",
        "text_config": {"hidden_size": 64, "num_attention_heads": 4},
    }
    assert qwen2.decoder_config(values).head is Head.OWN
    assert qwen2.decoder_config({**values, "tie_word_embeddings": True}).head is Head.TIED


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (llama, {"model_type": "mistral"}, "model_type 'mistral', expected llama"),
    (llama, {"attention_bias": True}, "attention_bias = True"),
    (llama, {"mlp_bias": True}, "mlp_bias = True"),
    (llama, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type = 'linear'"),
    (llama, {"rope_parameters": {"rope_type": "llama3"}}, "rope_type = 'llama3'"),
    (llama, {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    (llama, {"hidden_act": "mish"}, "activation 'mish'"),
    (qwen2, {"model_type": "qwen2", "rope_scaling": YARN}, "rope_type = 'yarn'"),
    (gemma, {"model_type": "gemma", "hidden_act": "silu"}, "activation 'silu'"),
    (gemma, {"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional"),
    (gemma, {"model_type": "gemma3_text", "rope_scaling": YARN}, "rope_type = 'yarn'"),
    (gemma, {"model_type": "gemma2", "layer_types": ["full_attention"]}, "1 layer_types .* 26"),
    (gemma4_text, {"model_type": "gemma4_text", "enable_moe_block": True}, "enable_moe_block = Tr"),
    (gemma4_text, {"use_bidirectional_attention": "all"}, "use_bidirectional_attention = 'all'"),
]


@pytest.mark.parametrize(("reader", "values", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(reader, values, message):
    with pytest.raises(CheckpointError, match=message):
        reader.decoder_config(values)
