"""Our one Decoder against transformers' models, with random weights that went through the key tables."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from vla.checkpoints.maps import gemma, gemma4_text, llama, qwen2
from vla.errors import CheckpointError
from vla.inference.generate import generate
from vla.losses.suffix import token_cross_entropy
from vla.models.decoder import Decoder
from vla.models.decoder_config import Head
from vla.models.sequence import Prefix, read
from vla.nn.masks import causal_blocks
from vla.nn.positions import positions_from_valid

ATOL = 1e-5
VOCABULARY, NUM_TOKENS, NUM_NEW = 97, 12, 6
WINDOW = 5  # shorter than the sequence
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
GEMMA_4 = {
    **SMALL,
    "num_hidden_layers": 7,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2
    + ["full_attention"],
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": VOCABULARY,
    "final_logit_softcapping": 2.0,
}


@dataclass(frozen=True)
class Family:
    """A reference configuration and our map for it."""

    map: ModuleType
    config: transformers.PreTrainedConfig

    def reference(self) -> Any:
        """Returns the reference with weights that hide nothing: norms, biases and scalars are random too."""
        self.config._attn_implementation = "eager"  # sdpa leaves Gemma 2's soft-cap out
        model = transformers.AutoModelForCausalLM.from_config(self.config)
        return randomised(model)


def randomised(model: nn.Module) -> nn.Module:
    """Queries are made shorter: Gemma 4 does not scale scores, and an almost hard softmax magnifies rounding."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        is_gain = "norm" in name or name.endswith("layer_scalar")
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(tensor + 0.3 * noise if is_gain else 0.2 * noise)
        if "q_norm" in name:
            tensor *= 0.3
    return model.eval()


def _gemma_3_rope() -> dict[str, Any]:
    return {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
    }


FAMILIES: dict[str, Callable[[], Family]] = {
    "llama": lambda: Family(
        llama,
        transformers.LlamaConfig(
            **SMALL | {"num_key_value_heads": 4, "head_dim": 8}, num_hidden_layers=3
        ),
    ),
    "llama, grouped queries": lambda: Family(
        llama, transformers.LlamaConfig(**SMALL, num_hidden_layers=3, rms_norm_eps=1e-3)
    ),
    "gemma": lambda: Family(
        gemma, transformers.GemmaConfig(**SMALL | {"num_key_value_heads": 1}, num_hidden_layers=3)
    ),
    "gemma 2": lambda: Family(
        gemma,
        transformers.Gemma2Config(
            **SMALL,
            num_hidden_layers=4,
            sliding_window=WINDOW,
            query_pre_attn_scalar=9,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
    ),
    "gemma 3": lambda: Family(
        gemma,
        transformers.Gemma3TextConfig(
            **SMALL,
            num_hidden_layers=7,
            sliding_window=WINDOW,
            query_pre_attn_scalar=9,
            rope_parameters=_gemma_3_rope(),
        ),
    ),
    "qwen2": lambda: Family(
        qwen2,
        transformers.Qwen2Config(
            **{k: v for k, v in SMALL.items() if k != "head_dim"}, num_hidden_layers=3
        ),
    ),
    "qwen2, windowed, tied": lambda: Family(
        qwen2,
        transformers.Qwen2Config(
            **{k: v for k, v in SMALL.items() if k != "head_dim"},
            num_hidden_layers=4,
            use_sliding_window=True,
            sliding_window=WINDOW,
            max_window_layers=2,
            tie_word_embeddings=True,
        ),
    ),
    "gemma 4, E2B-like": lambda: Family(
        gemma4_text,
        transformers.Gemma4TextConfig(
            **GEMMA_4
            | {
                "num_key_value_heads": 1,
                "hidden_size_per_layer_input": 8,
                "num_kv_shared_layers": 4,
                "use_double_wide_mlp": True,
            }
        ),
    ),
    "gemma 4, values are keys": lambda: Family(
        gemma4_text,
        transformers.Gemma4TextConfig(
            **GEMMA_4 | {"attention_k_eq_v": True, "num_global_key_value_heads": 1}
        ),
    ),
}


@dataclass(frozen=True)
class Pair:
    """A reference and our decoder with its weights."""

    reference: Any
    map: ModuleType
    decoder: Decoder


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request) -> Pair:
    torch.manual_seed(0)
    family = FAMILIES[request.param]()
    reference = family.reference()
    config = family.map.decoder_config(reference.config.to_dict())
    decoder = Decoder(config).eval()
    weights = stored(reference)
    decoder.load_state_dict(family.map.key_map(config).convert(weights, decoder))
    return Pair(reference, family.map, decoder)


def stored(reference: Any) -> dict[str, Tensor]:
    """The weights as a checkpoint has them: a tied head once."""
    weights = dict(reference.state_dict())
    if reference.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    return weights


@pytest.fixture(scope="module")
def prompts() -> tuple[Tensor, Tensor]:
    """Two prompts, the second padded on the left as the reference's generation wants it."""
    ids = torch.randint(2, VOCABULARY, (2, NUM_TOKENS), generator=torch.Generator().manual_seed(1))
    valid = torch.ones_like(ids, dtype=torch.bool)
    ids[1, :3], valid[1, :3] = 0, False
    return ids, valid


def prefix(decoder: Decoder, ids: Tensor, valid: Tensor) -> Prefix:
    return Prefix(
        embeddings=decoder.embed(ids),
        valid=valid,
        positions=positions_from_valid(valid),
        blocks=causal_blocks(valid),
        token_ids=ids,
        suffix_mask=torch.zeros_like(valid),
        is_image=torch.zeros_like(valid),
    )


@torch.no_grad()
def test_hidden_states_and_logits_agree(pair: Pair, prompts):
    ids, valid = prompts
    positions = positions_from_valid(valid)
    output = pair.reference(ids, attention_mask=valid.long(), position_ids=positions)
    expected = pair.reference.model(ids, attention_mask=valid.long(), position_ids=positions)
    hidden = read(pair.decoder, prefix(pair.decoder, ids, valid))
    logits = pair.decoder.logits(hidden)
    assert expected.last_hidden_state[valid].std() > 0.1
    torch.testing.assert_close(
        hidden[valid], expected.last_hidden_state[valid], atol=ATOL, rtol=ATOL
    )
    torch.testing.assert_close(logits[valid], output.logits[valid], atol=ATOL, rtol=ATOL)


@torch.no_grad()
def test_the_loss_agrees(pair: Pair, prompts):
    ids, valid = prompts
    is_label = valid.clone()
    is_label[1, 3] = False  # the first token after padding is foretold by padding
    labels = ids.masked_fill(~is_label, -100)
    expected = pair.reference(
        ids,
        attention_mask=valid.long(),
        position_ids=positions_from_valid(valid),
        labels=labels,
    ).loss
    logits = pair.decoder.logits(read(pair.decoder, prefix(pair.decoder, ids, valid)))
    loss = token_cross_entropy(logits[:, :-1], ids[:, 1:], is_label[:, 1:])
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-7)  # a unit in the last place


@torch.no_grad()
def test_greedy_tokens_agree(pair: Pair, prompts):
    ids, valid = prompts
    expected = pair.reference.generate(
        ids,
        attention_mask=valid.long(),
        generation_config=transformers.GenerationConfig(
            max_new_tokens=NUM_NEW, do_sample=False, pad_token_id=0
        ),
    )[:, NUM_TOKENS:]
    found = generate(pair.decoder, prefix(pair.decoder, ids, valid), max_tokens=NUM_NEW)
    assert found.tokens.tolist() == expected.tolist()


@torch.no_grad()
def test_bf16_stays_within_five_percent_of_fp32_and_as_near_as_the_reference(pair: Pair, prompts):
    """Root mean square over hidden states; weights go from the checkpoint's bf16 to the model without an fp32 copy."""
    ids, valid = prompts
    weights = {k: v.bfloat16() for k, v in stored(pair.reference).items()}
    key_map = pair.map.key_map(pair.decoder.config)
    with torch.device("meta"):
        half = Decoder(pair.decoder.config)
    half.load_state_dict(key_map.convert(weights, half), assign=True)
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.bfloat16}
    exact = read(pair.decoder, prefix(pair.decoder, ids, valid))[valid]
    ours = read(half.eval(), prefix(half, ids, valid))[valid]
    reference = copy.deepcopy(pair.reference).bfloat16()
    theirs = reference.model(
        ids, attention_mask=valid.long(), position_ids=positions_from_valid(valid)
    ).last_hidden_state[valid]
    assert ours.dtype == torch.bfloat16
    off, reference_off = (
        float((x.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt())
        for x in (ours, theirs)
    )
    assert off < 0.05
    assert off < 1.25 * reference_off


def test_weights_go_there_and_back_bit_for_bit(pair: Pair):
    key_map = pair.map.key_map(pair.decoder.config)
    exported = key_map.export(pair.decoder.state_dict())
    theirs = stored(pair.reference)
    assert exported.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert exported[name].shape == tensor.shape, name
        assert torch.equal(exported[name], tensor), name
    for name, tensor in key_map.convert(exported, pair.decoder).items():
        assert torch.equal(tensor, pair.decoder.state_dict()[name]), name


def test_a_model_saved_without_its_head_is_read_too(pair: Pair):
    if pair.decoder.config.head is Head.OWN:
        pytest.skip("a head of its own is part of the model")
    bare = {k.removeprefix("model."): v for k, v in stored(pair.reference).items()}
    ours = pair.map.key_map(pair.decoder.config).convert(bare, pair.decoder)
    assert torch.equal(ours["layers.0.mlp.down.weight"], bare["layers.0.mlp.down_proj.weight"])


def test_the_counted_parameters_are_the_reference_s(pair: Pair):
    theirs = sum(parameter.numel() for parameter in pair.reference.parameters())
    assert sum(parameter.numel() for parameter in pair.decoder.parameters()) == theirs


RELEASED: dict[str, tuple[ModuleType, Callable[[], transformers.PreTrainedConfig], int]] = {
    "llama 2 7b": (llama, transformers.LlamaConfig, 6_738_415_616),
    "gemma 2b": (
        gemma,
        lambda: transformers.GemmaConfig(
            hidden_size=2048,
            intermediate_size=16384,
            num_hidden_layers=18,
            num_attention_heads=8,
            num_key_value_heads=1,
        ),
        2_506_172_416,
    ),
    "gemma 2 2b": (gemma, transformers.Gemma2Config, 2_614_341_888),
    "gemma 3 270m": (
        gemma,
        lambda: transformers.Gemma3TextConfig(
            vocab_size=262144,
            hidden_size=640,
            intermediate_size=2048,
            num_hidden_layers=18,
            num_attention_heads=4,
            num_key_value_heads=1,
        ),
        268_098_176,
    ),
    "qwen2 1.5b": (
        qwen2,
        lambda: transformers.Qwen2Config(
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=28,
            num_attention_heads=12,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        1_543_714_304,
    ),
    "gemma 4 E2B": (gemma4_text, lambda: _gemma_4(1536, 20, 1, num_near=4), 4_628_569_344),
    "gemma 4 E4B": (gemma4_text, lambda: _gemma_4(2560, 18, 2, num_near=5), 7_463_013_376),
}


def _gemma_4(
    width: int, num_shared: int, num_kv_heads: int, num_near: int
) -> transformers.PreTrainedConfig:
    """Source: transformers, convert_gemma4_weights.py."""
    return transformers.Gemma4TextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=7 * (num_near + 1),
        layer_types=(["sliding_attention"] * num_near + ["full_attention"]) * 7,
        num_attention_heads=8,
        num_key_value_heads=num_kv_heads,
        num_kv_shared_layers=num_shared,
        use_double_wide_mlp=width == 1536,
        final_logit_softcapping=30.0,
    )


@pytest.mark.parametrize("name", RELEASED)
def test_released_decoders_have_as_many_parameters_as_the_reference(name):
    key_map, make_config, expected = RELEASED[name]
    values = make_config().to_dict()
    with torch.device("meta"):
        decoder = Decoder(key_map.decoder_config(values))
        reference = transformers.AutoModelForCausalLM.from_config(make_config())
    count = sum(p.numel() for p in decoder.parameters())
    assert count == sum(p.numel() for p in reference.parameters())
    assert count == expected
    key_map.key_map(decoder.config).export(decoder.state_dict())  # the table fits


def test_keys_that_shared_layers_carry_in_released_files_are_left_unread():
    """Gemma 4 E2B is stored with keys and values for layers that read another layer's."""
    family = FAMILIES["gemma 4, E2B-like"]()
    config = family.map.decoder_config(family.config.to_dict())
    weights = stored(family.reference())
    for name in ("k_proj", "v_proj", "k_norm"):
        weights[f"model.layers.6.self_attn.{name}.weight"] = torch.zeros(1)
    decoder = Decoder(config)
    key_map = family.map.key_map(config)
    decoder.load_state_dict(key_map.convert(weights, decoder))
    weights["model.layers.0.self_attn.v_norm.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"also holds model\.layers\.0\.self_attn\.v_norm"):
        key_map.convert(weights, decoder)


def test_a_checkpoint_of_another_decoder_is_refused():
    reference = FAMILIES["llama"]().reference()
    config = qwen2.decoder_config({**reference.config.to_dict(), "model_type": "qwen2"})
    with pytest.raises(CheckpointError, match=r"has no model\.layers\.0\.self_attn\.q_proj\.bias"):
        qwen2.key_map(config).convert(stored(reference), Decoder(config))
    config = gemma.decoder_config({"model_type": "gemma", "hidden_size": 8, "vocab_size": 9})
    foreign = {f"encoder.{i}.weight": torch.zeros(1) for i in range(50)}
    with pytest.raises(CheckpointError, match=r"the checkpoint is not Gemma's"):
        gemma.key_map(config).convert(foreign, Decoder(config))
