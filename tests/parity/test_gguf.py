"""A small random Gemma 3, written to GGUF the way llama.cpp does, read back, against transformers."""

import sys
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from vla.checkpoints import gguf
from vla.errors import CheckpointError, ConfigError
from vla.models.sequence import Prefix, read
from vla.nn.masks import causal_blocks
from vla.nn.positions import positions_from_valid

BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm",
}
PIECES = [
    ("<pad>", -1000.0, 3), ("<eos>", -1000.0, 3), ("<bos>", -1000.0, 3), ("<unk>", -1000.0, 3),
    ("  ", -1000.0, 4), ("\u2581cup", 0.0, 1), ("cup", -1.0, 1), ("up", -2.0, 1),
    ("\u2581", -3.0, 1), ("c", -4.0, 1), ("u", -5.0, 1), ("p", -6.0, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> Gemma3ForCausalLM:
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(PIECES), hidden_size=32, intermediate_size=64, num_hidden_layers=7, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=4, query_pre_attn_scalar=8, max_position_embeddings=64,
        attn_implementation="eager",
    )  # fmt: skip
    model = Gemma3ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def _write(path: Path, model: Gemma3ForCausalLM, **changes: Any) -> Path:
    """As llama.cpp's converter writes it; `down` is quantised."""
    config = model.config
    settings = {
        "architecture": "gemma3", "vocabulary": "llama", "block_count": config.num_hidden_layers,
        "scaling": "none",
    } | changes  # fmt: skip
    writer = library.GGUFWriter(path, settings["architecture"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    if settings["block_count"] is not None:
        writer.add_block_count(settings["block_count"])
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(config.sliding_window)
    if settings["scaling"] != "none":
        writer.add_rope_scaling_type(library.RopeScalingType(settings["scaling"]))
        writer.add_rope_scaling_factor(8.0)
    writer.add_tokenizer_model(settings["vocabulary"])
    writer.add_token_list([text for text, _, _ in PIECES])
    writer.add_token_scores([score for _, score, _ in PIECES])
    writer.add_token_types([kind for _, _, kind in PIECES])
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)
    state = {name: tensor.detach().numpy() for name, tensor in model.model.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["norm.weight"] + 1)
    for layer in range(config.num_hidden_layers):
        for theirs, name in BLOCK.items():
            values = state[f"layers.{layer}.{theirs}.weight"]
            values, kind = (values + 1 if "norm" in name else values), None
            if name == "ffn_down":
                kind = library.GGMLQuantizationType.Q8_0
                values = library.quantize(values, kind)
            writer.add_tensor(f"blk.{layer}.{name}.weight", values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def file(reference, tmp_path) -> Path:
    return _write(tmp_path / "model.gguf", reference)


def _prefix(decoder, ids: torch.Tensor) -> Prefix:
    valid = torch.ones_like(ids, dtype=torch.bool)
    return Prefix(
        embeddings=decoder.embed(ids), valid=valid, positions=positions_from_valid(valid), blocks=causal_blocks(valid),
        token_ids=ids, suffix_mask=~valid, is_image=~valid,
    )  # fmt: skip


def test_a_decoder_read_from_gguf_gives_the_references_logits(file, reference):
    decoder, _ = gguf.load(file)
    for layer in reference.model.layers:  # what quantisation made of them
        down = layer.mlp.down_proj.weight
        kind = library.GGMLQuantizationType.Q8_0
        rounded = library.dequantize(library.quantize(down.detach().numpy(), kind), kind)
        down.data = torch.from_numpy(rounded)
    ids = torch.randint(0, len(PIECES), (2, 11))
    with torch.no_grad():
        ours = decoder.logits(read(decoder, _prefix(decoder, ids)))
        theirs = reference(ids, use_cache=False).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_weights_can_be_read_in_half_the_size(file):
    decoder, _ = gguf.load(file, torch.bfloat16)
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.bfloat16}


def test_the_vocabulary_joins_the_best_scored_pieces_and_keeps_runs_of_spaces(file):
    _, tokenizer = gguf.load(file)
    assert tokenizer.encode("cup cup  up").ids == [6, 5, 4, 7]
    assert tokenizer.decode([6, 5, 4, 7]) == "cup cup  up"


def test_scaled_positions_are_read(reference, tmp_path):
    decoder, _ = gguf.load(_write(tmp_path / "model.gguf", reference, scaling="linear"))
    assert decoder.config.full_rope_factor == 8.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "llama"}, "holds a 'llama'; only gemma3 can be read from GGUF"),
        ({"vocabulary": "gpt2"}, "vocabulary is of kind 'gpt2'; only 'llama'"),
        ({"block_count": None}, "the file has no gemma3.block_count"),
        ({"block_count": 8}, r"the checkpoint has no blk\.7\.attn_norm\.weight"),
        ({"scaling": "yarn"}, "rope scaling of type 'yarn' is not supported"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(reference, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        gguf.load(_write(tmp_path / "model.gguf", reference, **change))


def test_a_damaged_file_is_refused(file, tmp_path):
    short = tmp_path / "short.gguf"
    short.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"short\.gguf is not a whole GGUF file"):
        gguf.GGUFFile(short)
    other = tmp_path / "other.gguf"
    other.write_bytes(np.arange(100).tobytes())
    with pytest.raises(CheckpointError, match="not a whole GGUF file"):
        gguf.GGUFFile(other)
    with pytest.raises(CheckpointError, match=r"no file .*absent\.gguf"):
        gguf.GGUFFile(tmp_path / "absent.gguf")


def test_without_the_library_the_error_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        ConfigError, match="needs the package gguf, which is not installed; pip install gguf"
    ):
        gguf.load(file)
