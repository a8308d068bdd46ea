import dataclasses
import json

import pytest
import torch

from vla.errors import ConfigError
from vla.losses.grounding import grounding_losses
from vla.losses.joint import joint_loss
from vla.losses.suffix import action_cross_entropy, token_cross_entropy
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import (
    ActionDecoding,
    PrismaticConfig,
    openvla_7b,
    tiny,
)
from vla.models.decoder_config import DecoderConfig
from vla.models.vision import presets
from vla.nn.masks import PrefixAttention
from vla.tokenizers.action_bins import ActionLayout

TEXT = 40
PARALLEL = PrismaticConfig(
    image_size=32,
    towers=[presets.tiny_dinov2(32, 1), presets.tiny_siglip(32, 1)],
    projector_width=32,
    text_vocab_size=TEXT,
    decoder=DecoderConfig(
        vocab_size=TEXT, width=32, depth=2, num_heads=2, num_kv_heads=1, head_dim=16, mlp_width=48
    ),
    chunk_length=3,
)
ONE_BY_ONE = dataclasses.replace(
    PARALLEL,
    decoder=dataclasses.replace(PARALLEL.decoder, vocab_size=TEXT + 7 * 256),
    action_decoding=ActionDecoding.AUTOREGRESSIVE,
    grounding=False,
)


def _inputs(batch: int = 2, num_padding: int = 0) -> dict[str, torch.Tensor]:
    valid = torch.ones(batch, 6 + num_padding, dtype=torch.bool)
    valid[:, 6:] = False
    ids = torch.randint(4, TEXT, valid.shape)
    return {
        "images": torch.randint(0, 256, (batch, 2, 3, 32, 32), dtype=torch.uint8),
        "text_ids": torch.where(valid, ids, 0),
        "text_valid": valid,
        "state": torch.rand(batch, 7),
    }


def _bins(batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, 7))


def _model(config: PrismaticConfig) -> Prismatic:
    torch.manual_seed(0)
    return Prismatic(config)


def test_parallel_decoding_gives_logits_of_a_chunk_and_says_where_the_object_is():
    output = _model(PARALLEL)(**_inputs())
    assert output.action_logits.shape == (2, 3, 7, 256)
    assert output.pointing_logits.shape == (2, 2, 4)
    assert output.target_from_tool_dm.shape == (2, 3)
    assert output.token_logits is None


def test_autoregressive_decoding_gives_logits_over_all_tokens_and_over_the_bins():
    output = _model(ONE_BY_ONE)(**_inputs(), action_bins=_bins())
    assert output.token_logits.shape == (2, 21, TEXT + 7 * 256)
    assert output.action_logits.shape == (2, 3, 7, 256)
    assert output.pointing_logits is None


@pytest.mark.parametrize("config", [PARALLEL, ONE_BY_ONE])
@pytest.mark.parametrize("attention", list(PrefixAttention))
def test_padding_changes_nothing(config, attention):
    model = _model(dataclasses.replace(config, attention=attention)).eval()
    padded = _inputs(num_padding=5)
    plain = padded | {
        "text_ids": padded["text_ids"][:, :6],
        "text_valid": padded["text_valid"][:, :6],
    }
    bins = _bins()
    torch.testing.assert_close(
        model(**padded, action_bins=bins).action_logits,
        model(**plain, action_bins=bins).action_logits,
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_teacher_forced_token_does_not_know_itself_or_what_follows():
    model, inputs, bins = _model(ONE_BY_ONE).eval(), _inputs(), _bins()
    changed = bins.clone()
    changed[:, 1, 3:] = (changed[:, 1, 3:] + 50) % 256
    before = model(**inputs, action_bins=bins).action_logits.flatten(1, 2)
    after = model(**inputs, action_bins=changed).action_logits.flatten(1, 2)
    torch.testing.assert_close(after[:, :11], before[:, :11])  # step 1, number 3 is token 10
    assert not torch.allclose(after[:, 11:], before[:, 11:])


@pytest.mark.parametrize(
    ("attention", "is_seen"), [(PrefixAttention.PREFIX_LM, True), (PrefixAttention.CAUSAL, False)]
)
def test_image_tokens_read_the_instruction_when_the_prefix_attends_to_all_of_itself(
    attention, is_seen
):
    model, inputs = _model(dataclasses.replace(PARALLEL, attention=attention)).eval(), _inputs()
    seen = {}
    model.grounding_head.key.register_forward_hook(
        lambda _, args, __: seen.setdefault(len(seen), args[0])
    )
    model(**inputs)
    other_words = inputs["text_ids"].clone()
    other_words[:, 1:] = inputs["text_ids"][:, 1:].roll(1, dims=0)
    model(**inputs | {"text_ids": other_words})
    assert torch.allclose(seen[0], seen[1], atol=1e-6) is not is_seen


@pytest.mark.parametrize("name", ["images", "text_ids", "state"])
def test_every_input_moves_the_actions(name):
    model, inputs = _model(PARALLEL).eval(), _inputs()
    other = inputs | {name: inputs[name].flip(0)}
    before, after = model(**inputs).action_logits, model(**other).action_logits
    assert not torch.allclose(before, after, atol=1e-4)


def test_the_two_views_are_told_apart():
    model, inputs = _model(PARALLEL).eval(), _inputs()
    swapped = inputs | {"images": inputs["images"].flip(1)}
    before, after = model(**inputs).action_logits, model(**swapped).action_logits
    assert not torch.allclose(before, after, atol=1e-4)


def test_a_few_steps_of_descent_learn_a_batch_by_heart_parallel():
    model, inputs, bins = _model(PARALLEL), _inputs(), _bins()
    labels = torch.tensor(
        [[0.1, 0.0, -0.1, 0.2, 0.2, -1.0, -1.0], [0.0, 0.2, 0.0, 0.7, 0.2, 0.6, 0.9]]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        output = model(**inputs)
        terms = {
            "action": action_cross_entropy(
                output.action_logits, bins, torch.ones(2, 3, dtype=torch.bool)
            )
        }
        terms |= grounding_losses(output.pointing_logits, output.target_from_tool_dm, labels)
        loss = joint_loss(terms, dict.fromkeys(terms, 1.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0  # from 5.5 nats for the actions alone
    assert (output.action_logits.argmax(dim=-1) == bins).float().mean() > 0.9


def test_a_few_steps_of_descent_learn_a_batch_by_heart_autoregressive():
    model, inputs, bins = _model(ONE_BY_ONE), _inputs(), _bins()
    ids = model.action_head.token_ids(bins).flatten(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        output = model(**inputs, action_bins=bins)
        loss = token_cross_entropy(output.token_logits, ids, torch.ones_like(ids, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0  # from 7.5 nats


def test_every_weight_gets_a_gradient():
    model = _model(PARALLEL)
    output = model(**_inputs(num_padding=2))
    total = output.action_logits.square().sum() + output.pointing_logits.square().sum()
    (total + output.target_from_tool_dm.square().sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_bf16_autocast_stays_close_to_fp32():
    model, inputs = _model(PARALLEL).eval(), _inputs()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(**inputs).action_logits
    difference = (low.float() - model(**inputs).action_logits).abs().mean()
    assert low.dtype is torch.bfloat16
    assert difference < 0.05


def test_the_same_seed_gives_the_same_weights():
    first, second = _model(PARALLEL).state_dict(), _model(PARALLEL).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_built_without_memory_takes_weights_and_computes_the_same():
    model, inputs = _model(PARALLEL).eval(), _inputs()
    with torch.device("meta"):
        empty = Prismatic(PARALLEL)
    empty.load_state_dict(model.state_dict(), assign=True)
    torch.testing.assert_close(empty.eval()(**inputs).action_logits, model(**inputs).action_logits)


def test_openvla_7b_has_the_size_it_is_named_after():
    with torch.device("meta"):
        model = Prismatic(openvla_7b())
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 1) == 7.5


def test_the_tiny_model_fits_its_budget():
    num_parameters = sum(p.numel() for p in Prismatic(tiny(512)).parameters())
    assert 2e6 < num_parameters < 4e6


@pytest.mark.parametrize("config", [PARALLEL, ONE_BY_ONE, openvla_7b()])
def test_a_config_survives_json(config):
    assert PrismaticConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_with_an_unknown_field_is_refused():
    with pytest.raises(ConfigError, match="num_wheels"):
        PrismaticConfig.from_dict(PARALLEL.to_dict() | {"num_wheels": 4})


def test_an_autoregressive_model_without_actions_says_what_it_needs():
    with pytest.raises(ConfigError, match="is fed action_bins; or use ActionEngine"):
        _model(ONE_BY_ONE)(**_inputs())


def test_a_model_that_reads_proprioception_asks_for_it():
    inputs = _inputs()
    del inputs["state"]
    with pytest.raises(ConfigError, match="the model reads 7 state values"):
        _model(PARALLEL)(**inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_length": 0}, "chunk_length = 0; it must be at least 1"),
        (
            {"action_decoding": ActionDecoding.AUTOREGRESSIVE, "grounding": False},
            "embeds 40 tokens; text_vocab_size 40 with PER_DIMENSION action tokens needs 1832",
        ),
        (
            {
                "action_decoding": ActionDecoding.AUTOREGRESSIVE,
                "action_layout": ActionLayout.LAST_256,
            },
            "grounding reads the first action slot",
        ),
    ],
)
def test_choices_that_do_not_fit_each_other_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(PARALLEL, **change)
