from typing import Any

import pytest
import torch
from torch import Tensor

from vla.errors import ConfigError
from vla.inference.generate import Generated, generate
from vla.inference.sampling import Sampling
from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.sequence import Prefix, next_positions, read
from vla.nn.masks import causal_blocks, island_blocks, prefix_lm_blocks
from vla.nn.mlp import Activation
from vla.nn.norms import Norm
from vla.nn.positions import last_valid, positions_from_valid
from vla.tokenizers.action_bins import ActionLayout, ActionVocabulary

VOCABULARY = 60
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "width": 32, "depth": 4, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8,
    "mlp_width": 48, "head": Head.TIED, "max_tokens": 64,
}  # fmt: skip
GEMMA = SMALL | {
    "norm": Norm.RMS_OFFSET, "activation": Activation.GELU_TANH, "scales_embedding": True, "num_kv_heads": 1,
}  # fmt: skip
GEMMA3 = GEMMA | {"has_post_norms": True, "has_qk_norm": True, "window": 4, "full_layers": [3]}
GEMMA4 = GEMMA3 | {
    "norm": Norm.RMS, "has_v_norm": True, "attention_scale": 1.0, "has_layer_scalars": True, "full_head_dim": 16,
    "full_rope_theta": 1e6, "full_rope_share": 0.25, "final_softcap": 30.0,
}  # fmt: skip
DECODERS = {
    "llama": SMALL | {"head": Head.OWN, "num_kv_heads": 4},
    "gemma": GEMMA,
    "gemma2": GEMMA
    | {"has_post_norms": True, "attention_softcap": 50.0, "final_softcap": 30.0, "window": 4, "full_layers": [1, 3]},
    "gemma3": GEMMA3 | {"full_rope_theta": 1e6, "full_rope_factor": 8.0},
    "gemma4_e2b": GEMMA4
    | {"depth": 6, "full_layers": [1, 3, 5], "num_shared_layers": 2, "shared_mlp_factor": 2,
       "per_layer_width": 8, "per_layer_vocab_size": VOCABULARY},
    "gemma4_31b": GEMMA4
    | {"num_kv_heads": 2, "full_num_kv_heads": 1, "full_values_are_keys": True},
    "qwen2_vl": SMALL | {"qkv_bias": True, "rope_sections": [2, 1, 1], "head": Head.OWN},
}  # fmt: skip
LENGTHS = (9, 5, 7)  # each longer than the window


def _decoder(name: str, **changes: Any) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(**DECODERS[name] | changes)).eval()
    for parameter in decoder.parameters():  # large enough for every part to matter
        torch.nn.init.normal_(parameter, std=0.3)
    if decoder.layer_scalars is not None:
        decoder.layer_scalars.uniform_(0.5, 1.5)
    return decoder


def _positions(name: str, valid: Tensor) -> Tensor:
    positions = positions_from_valid(valid)
    if name != "qwen2_vl":
        return positions
    is_image = valid & (positions > 0) & (positions < 5)  # a picture of 2 x 2 after the first token
    patch = positions - 1
    row, column = 1 + patch // 2, 1 + patch % 2
    after = torch.where(positions < 5, positions, positions - 2)
    axes = [torch.where(is_image, x, after) for x in (torch.ones_like(row), row, column)]
    return torch.stack(axes, dim=-1)


def _blocks(name: str, valid: Tensor) -> tuple[Tensor, Tensor | None]:
    if name in ("gemma", "gemma2"):
        return prefix_lm_blocks(torch.zeros_like(valid)), None
    if name == "gemma4_31b":
        positions = positions_from_valid(valid)
        return causal_blocks(valid), island_blocks(valid & (positions > 1) & (positions < 5))
    return causal_blocks(valid), None


def _prefix(name: str, decoder: Decoder, rows: list[Tensor], side: str = "right") -> Prefix:
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    valid = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        places = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[index, places], valid[index, places] = row, True
    blocks, near_blocks = _blocks(name, valid)
    return Prefix(
        embeddings=decoder.embed(ids).detach(),
        valid=valid,
        positions=_positions(name, valid),
        blocks=blocks,
        near_blocks=near_blocks,
        token_ids=ids,
        suffix_mask=torch.zeros_like(valid),
        is_image=torch.zeros_like(valid),
        keeps_blocks=name == "gemma2",
    )


def _prompts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def _with_token(decoder: Decoder, prefix: Prefix, ids: Tensor) -> Prefix:
    """The prefix with one more token a row, by its definition and not by the cache's bookkeeping."""

    following = next_positions(prefix)[:, None]
    if prefix.positions.dim() == 3:
        following = following[..., None].expand(-1, -1, 3)
    last_block = torch.full_like(ids[:, None], 1000 + prefix.blocks.shape[1])
    near = prefix.near_blocks
    is_there = torch.ones_like(ids[:, None], dtype=torch.bool)
    return Prefix(
        embeddings=torch.cat([prefix.embeddings, decoder.embed(ids[:, None])], dim=1),
        valid=torch.cat([prefix.valid, is_there], dim=1),
        positions=torch.cat([prefix.positions, following], dim=1),
        blocks=torch.cat([prefix.blocks, last_block], dim=1),
        near_blocks=None if near is None else torch.cat([near, last_block], dim=1),
        token_ids=torch.cat([prefix.token_ids, ids[:, None]], dim=1),
        suffix_mask=torch.cat([prefix.suffix_mask, ~is_there], dim=1),
        is_image=torch.cat([prefix.is_image, ~is_there], dim=1),
        keeps_blocks=prefix.keeps_blocks,
    )


@torch.no_grad()
def _without_cache(decoder: Decoder, prefix: Prefix, num_tokens: int) -> tuple[Tensor, Tensor]:
    tokens, probabilities = [], []
    for _ in range(num_tokens):
        logits = decoder.logits(last_valid(read(decoder, prefix), prefix.valid))[:, 0]
        probability, chosen = logits.softmax(dim=-1).max(dim=-1)
        tokens.append(chosen)
        probabilities.append(probability)
        prefix = _with_token(decoder, prefix, chosen)
    return torch.stack(tokens, dim=1), torch.stack(probabilities, dim=1)


def _assert_same(ours: Generated, tokens: Tensor, probabilities: Tensor) -> None:
    assert torch.equal(ours.tokens, tokens)
    torch.testing.assert_close(ours.probabilities, probabilities, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", DECODERS)
def test_generation_with_a_cache_equals_reading_everything_again_for_each_token(name, side):
    decoder = _decoder(name)
    prefix = _prefix(name, decoder, _prompts(), side)
    generated = generate(decoder, prefix, max_tokens=6)
    _assert_same(generated, *_without_cache(decoder, prefix, 6))
    assert generated.valid.all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", DECODERS)
def test_prompts_of_different_length_in_one_batch_give_what_each_gives_alone(name, side):
    decoder, prompts = _decoder(name), _prompts()
    together = generate(decoder, _prefix(name, decoder, prompts, side), max_tokens=6)
    for row, prompt in enumerate(prompts):
        alone = generate(decoder, _prefix(name, decoder, [prompt]), max_tokens=6)
        assert torch.equal(together.tokens[row], alone.tokens[0])
        torch.testing.assert_close(
            together.probabilities[row], alone.probabilities[0], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "gemma4_31b"])
def test_a_generated_token_does_not_see_past_the_window(name):
    """With windowed layers alone and no more layers than it takes, what lies too far back changes nothing."""
    decoder = _decoder(name, depth=2, full_layers=[])
    near, far = _prompts()[0], _prompts()[0].clone()
    far[:2] = 1  # 2 layers of window 4 reach back 6 tokens: the last of 9 sees the last 7
    outcomes = [
        generate(decoder, _prefix("gemma3", decoder, [ids]), max_tokens=4) for ids in (near, far)
    ]
    assert torch.equal(outcomes[0].probabilities, outcomes[1].probabilities)
    far[2] = 1
    other = generate(decoder, _prefix("gemma3", decoder, [far]), max_tokens=4)
    assert not torch.equal(outcomes[0].probabilities, other.probabilities)


def test_a_row_ends_at_its_own_stop_token_and_repeats_it():
    decoder = _decoder("llama")
    prefix = _prefix("llama", decoder, _prompts())
    free = generate(decoder, prefix, max_tokens=8)
    stop = int(free.tokens[1, 2])
    stopped = generate(decoder, prefix, max_tokens=8, stop_ids=[stop])
    for row in range(3):
        found = (free.tokens[row] == stop).nonzero()
        end = int(found[0]) + 1 if len(found) else 8
        assert torch.equal(stopped.tokens[row, :end], free.tokens[row, :end])
        assert (stopped.tokens[row, end:] == stop).all()
        assert (stopped.probabilities[row, end:] == 1).all()
        assert stopped.valid[row].tolist() == [step < end for step in range(stopped.valid.shape[1])]


def test_generation_ends_early_when_every_row_has_stopped():
    decoder = _decoder("llama")
    generated = generate(
        decoder, _prefix("llama", decoder, _prompts()), max_tokens=8, stop_ids=range(VOCABULARY)
    )
    assert generated.tokens.shape == (3, 1)


def test_sampling_repeats_with_the_same_seed_and_differs_with_another():
    decoder = _decoder("gemma3")
    prefix = _prefix("gemma3", decoder, _prompts())

    def sample(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        sampling = Sampling(temperature=5.0, top_k=20, top_p=0.95)
        return generate(
            decoder, prefix, max_tokens=8, sampling=sampling, generator=generator
        ).tokens

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_only_the_allowed_ids_of_each_step_come_out(name, temperature):
    """Action tokens come out of every family, each dimension's from its own rows of the vocabulary."""
    decoder = _decoder(name)
    vocabulary = ActionVocabulary(ActionLayout.LAST_256, VOCABULARY, 1)
    steps = [
        torch.arange(50, 55),
        torch.tensor([3]),
        None,
        torch.arange(vocabulary.first_ids[0] - 9, 60),
    ]
    generated = generate(
        decoder,
        _prefix(name, decoder, _prompts()),
        max_tokens=4,
        allowed_ids=lambda step: steps[step],
        sampling=Sampling(temperature=temperature),
        generator=torch.Generator().manual_seed(0),
    )
    for step, allowed in enumerate(steps):
        if allowed is not None:
            assert torch.isin(generated.tokens[:, step], allowed).all()
    torch.testing.assert_close(generated.probabilities[:, 1], torch.ones(3))


def test_logits_can_be_read_by_another_head():
    decoder = _decoder("llama")
    head = torch.nn.Linear(32, 5)
    with torch.no_grad():
        prefix = _prefix("llama", decoder, _prompts())
        generated = generate(decoder, prefix, max_tokens=1, read_logits=head)
        expected = head(last_valid(read(decoder, prefix), prefix.valid))[:, 0]
    assert torch.equal(generated.tokens[:, 0], expected.argmax(dim=-1))


def test_a_prompt_that_does_not_fit_the_context_is_refused_with_the_numbers():
    decoder = _decoder("llama")
    prefix = _prefix("llama", decoder, _prompts())
    with pytest.raises(
        ConfigError,
        match=r"prompt 0 has 9 tokens, pictures included; with max_tokens = 56 that is 65, .* holds 64",
    ):
        generate(decoder, prefix, max_tokens=56)
    assert generate(decoder, prefix, max_tokens=55).tokens.shape == (3, 55)


def test_an_empty_prompt_is_refused():
    decoder = _decoder("llama")
    prefix = _prefix("llama", decoder, [*_prompts(), torch.zeros(0, dtype=torch.int64)])
    with pytest.raises(ConfigError, match="prompt 3 is empty; give at least one token"):
        generate(decoder, prefix, max_tokens=2)


def test_asking_for_nothing_is_refused():
    decoder = _decoder("llama")
    with pytest.raises(ConfigError, match="max_tokens = 0; ask for at least 1"):
        generate(decoder, _prefix("llama", decoder, _prompts()), max_tokens=0)
