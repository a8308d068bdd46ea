import dataclasses

import pytest
import torch

from vla.inference.engine import ActionEngine
from vla.inference.readout import Readout
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.nn.masks import PrefixAttention
from vla.tokenizers.action_bins import ActionLayout

TEXT = 300
SHAPE = PrismaticConfig(
    image_size=32,
    towers=[presets.tiny_dinov2(32, 1), presets.tiny_siglip(32, 1)],
    projector_width=32,
    decoder=DecoderConfig(
        vocab_size=TEXT, width=32, depth=2, num_heads=4, num_kv_heads=2, head_dim=8, mlp_width=48, head=Head.OWN
    ),
)  # fmt: skip


def _parallel() -> VisionLanguageAction:
    torch.manual_seed(0)
    return VisionLanguageAction(
        Prismatic(SHAPE), ActionConfig(text_vocab_size=TEXT, chunk_length=2)
    )


def _one_by_one(layout: ActionLayout, attention: PrefixAttention) -> VisionLanguageAction:
    torch.manual_seed(0)
    decoder = dataclasses.replace(SHAPE.decoder, vocab_size=TEXT + 7 * 256)
    actions = ActionConfig(
        text_vocab_size=TEXT,
        layout=layout,
        decoding=ActionDecoding.AUTOREGRESSIVE,
        chunk_length=2,
        grounding=False,
    )
    backbone = Prismatic(dataclasses.replace(SHAPE, decoder=decoder, attention=attention))
    return VisionLanguageAction(backbone, actions)


def _inputs() -> dict[str, torch.Tensor]:
    valid = torch.tensor([[True] * 5 + [False] * 3, [True] * 8, [True] * 2 + [False] * 6])
    return {
        "images": torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8),
        "text_ids": torch.randint(4, TEXT, (3, 8)),
        "text_valid": valid,
        "state": torch.rand(3, 7),
    }


@pytest.mark.parametrize("layout", list(ActionLayout))
@pytest.mark.parametrize("attention", list(PrefixAttention))
def test_decoding_with_a_cache_equals_reading_everything_again_for_each_token(layout, attention):
    model, inputs = _one_by_one(layout, attention), _inputs()
    bins, probabilities = ActionEngine(model=model).predict(**inputs)
    again = torch.zeros_like(bins)
    with torch.no_grad():
        for step in range(2):
            for dim in range(7):
                logits = model(**inputs, action_bins=again).action_logits
                again[:, step, dim] = logits[:, step, dim].argmax(dim=-1)
        chosen = model(**inputs, action_bins=again).action_logits.softmax(dim=-1)
    torch.testing.assert_close(bins, again)
    expected = chosen.gather(-1, bins[..., None])[..., 0]
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-4)


def test_a_token_that_is_no_action_is_never_chosen_however_likely():
    model, inputs = _one_by_one(ActionLayout.NEW_256, PrefixAttention.CAUSAL), _inputs()
    before, _ = ActionEngine(model=model).predict(**inputs)
    model.backbone.decoder.lm_head.weight.data[:TEXT] *= 1000.0  # words shout
    after, _ = ActionEngine(model=model).predict(**inputs)
    torch.testing.assert_close(after, before)


def test_parallel_decoding_can_take_the_likeliest_bins_of_one_forward_pass():
    model, inputs = _parallel(), _inputs()
    bins, probabilities = ActionEngine(model=model).predict(**inputs)
    with torch.no_grad():
        expected = model(**inputs).action_logits.softmax(dim=-1).max(dim=-1)
    assert bins.shape == (3, 2, 7)
    torch.testing.assert_close(bins, expected.indices)
    torch.testing.assert_close(probabilities, expected.values)


@pytest.mark.parametrize("is_parallel", [True, False])
def test_sampling_repeats_with_the_same_seed(is_parallel):
    model = (
        _parallel()
        if is_parallel
        else _one_by_one(ActionLayout.PER_DIMENSION, PrefixAttention.PREFIX_LM)
    )
    inputs = _inputs()

    def sample(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        engine = ActionEngine(model=model, temperature=1.0, generator=generator)
        return engine.predict(**inputs)[0]

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


@pytest.mark.parametrize("layout", list(ActionLayout))
def test_committed_steps_come_out_as_they_went_in_and_the_rest_is_decoded_given_them(layout):
    model, inputs = _one_by_one(layout, PrefixAttention.PREFIX_LM), _inputs()
    committed = torch.randint(0, 255, (3, 1, 7))
    bins, probabilities = ActionEngine(model=model).predict(**inputs, committed=committed)
    assert torch.equal(bins[:, :1], committed)
    assert torch.equal(probabilities[:, 0], torch.ones(3, 7))
    with torch.no_grad():
        logits = model(**inputs, action_bins=bins).action_logits
    assert torch.equal(bins[:, 1:], logits[:, 1:].argmax(dim=-1))


def test_committing_to_what_would_have_come_out_changes_nothing():
    model, inputs = _one_by_one(ActionLayout.LAST_256, PrefixAttention.CAUSAL), _inputs()
    free, _ = ActionEngine(model=model).predict(**inputs)
    forced, _ = ActionEngine(model=model).predict(**inputs, committed=free[:, :1])
    assert torch.equal(forced, free)


def test_cautious_parallel_decoding_takes_medians_where_no_rest_is_known():
    model, inputs = _parallel(), _inputs()
    bins, _ = ActionEngine(model=model, readout=Readout.CAUTIOUS).predict(**inputs)
    with torch.no_grad():
        probabilities = model(**inputs).action_logits.softmax(dim=-1)
    below = (probabilities.cumsum(dim=-1) - probabilities).gather(-1, bins[..., None])[..., 0]
    up_to = probabilities.cumsum(dim=-1).gather(-1, bins[..., None])[..., 0]
    assert (below < 0.5).all()
    assert (up_to >= 0.5).all()
