"""Our PaliGemma against transformers 5.5.4, and PaliGemma 2 against recorded outputs of 5.23.0.

5.5.4 leaves the last soft-cap of PaliGemma 2 out. The recording is made by scripts/make_golden.py.
"""

import copy

import pytest
import torch
from fp32_copies import Fp32Copies
from reference_paligemma import (
    ATOL,
    CASES,
    GOLDEN,
    IMAGE,
    NUM_NEW,
    SIZE,
    Pair,
    Prompts,
    first_paligemma,
    prompts_of,
    random_pixels,
    second_paligemma,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from vla.errors import ConfigError
from vla.inference.generate import decode, generate, prefill
from vla.losses.suffix import token_cross_entropy
from vla.models.backbones.paligemma import PaliGemma
from vla.models.sequence import read
from vla.nn.masks import attention_mask


@pytest.fixture(scope="module")
def pair() -> Pair:
    return first_paligemma()


@pytest.fixture(scope="module")
def paligemma2() -> PaliGemma:
    return second_paligemma()


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(GOLDEN / "io.safetensors")


@pytest.fixture
def recorded_prompts(recorded) -> Prompts:
    names = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
    ids, valid, is_suffix, pixels = (recorded[f"input.{name}"] for name in names)
    return Prompts(ids, valid.bool(), is_suffix.bool(), pixels)


@pytest.fixture(params=CASES, ids=str)
def prompts(request) -> Prompts:
    return prompts_of(*CASES[request.param])


@torch.no_grad()
def test_hidden_states_and_logits_agree(pair, prompts):
    theirs = pair.theirs(**prompts.theirs(), output_hidden_states=True)
    hidden = read(pair.ours.decoder, prompts.embedded(pair.ours))
    logits = pair.ours.decoder.logits(hidden)
    for ours, reference in ((hidden, theirs.hidden_states[-1]), (logits, theirs.logits)):
        torch.testing.assert_close(ours[prompts.valid], reference[prompts.valid], atol=ATOL, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if name != "no answer yet"])
def test_the_loss_on_the_answer_agrees(pair, name):
    prompts = prompts_of(*CASES[name])
    labels = prompts.ids.masked_fill(~prompts.is_suffix, -100)
    theirs = pair.theirs(**prompts.theirs(), labels=labels).loss
    logits = prompts.logits(pair.ours)[:, :-1]
    ours = token_cross_entropy(logits, prompts.ids[:, 1:], prompts.is_suffix[:, 1:])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("counts", [(1, 1), (2, 0), (1, 2)])
def test_greedy_tokens_agree(pair, side, counts):
    """On whichever side ours is padded: the reference goes on after the padding, so it takes left padding alone."""
    rows = [(counts[0], [11, 12, 13], []), (counts[1], [14] * 7, [])]
    left = prompts_of(rows, "left")
    theirs = pair.theirs.generate(
        **left.theirs(), do_sample=False, max_new_tokens=NUM_NEW, eos_token_id=None
    )
    prefix = prompts_of(rows, side).embedded(pair.ours)
    ours = generate(pair.ours.decoder, prefix, max_tokens=NUM_NEW)
    assert ours.tokens.tolist() == theirs[:, left.ids.shape[1] :].tolist()


@torch.no_grad()
def test_hidden_states_and_logits_of_paligemma_2_agree(paligemma2, recorded, recorded_prompts):
    """With both soft-caps, and a window that is shorter than the prefix and does not cut it."""
    tokens = paligemma2.image_tokens(recorded_prompts.pixels)
    torch.testing.assert_close(tokens, recorded["output.image_tokens"], atol=ATOL, rtol=0)
    hidden = read(paligemma2.decoder, recorded_prompts.embedded(paligemma2))
    logits = paligemma2.decoder.logits(hidden)
    for ours, name in ((hidden, "hidden"), (logits, "logits")):
        valid = recorded_prompts.valid
        torch.testing.assert_close(
            ours[valid], recorded[f"output.{name}"][valid], atol=ATOL, rtol=0
        )


@torch.no_grad()
def test_the_loss_of_paligemma_2_agrees(paligemma2, recorded, recorded_prompts):
    logits, labels = recorded_prompts.logits(paligemma2), recorded["input.labels"]
    ours = token_cross_entropy(logits[:, :-1], labels[:, 1:], labels[:, 1:] >= 0)
    torch.testing.assert_close(ours, recorded["output.loss"], atol=1e-6, rtol=0)


@torch.no_grad()
def test_greedy_tokens_of_paligemma_2_agree(paligemma2, recorded, recorded_prompts):
    num_prefix = 13  # tokens of the longer prompt; the other ends there too, as it is padded left
    prompt = Prompts(
        recorded_prompts.ids[:, :num_prefix],
        recorded_prompts.valid[:, :num_prefix],
        torch.zeros(2, num_prefix, dtype=torch.bool),
        recorded_prompts.pixels,
    )
    found = generate(paligemma2.decoder, prompt.embedded(paligemma2), max_tokens=8)
    assert found.tokens.tolist() == recorded["output.generated"].tolist()


@torch.no_grad()
def test_another_picture_changes_the_logits_of_what_is_read_after_it_from_the_cache(pair):
    def logits(seed: int) -> Tensor:
        prompts = prompts_of([(1, [11, 12], [])])
        prompts.pixels = random_pixels(1, seed)
        _, context = prefill(pair.ours.decoder, prompts.embedded(pair.ours), num_further_tokens=1)
        hidden = decode(pair.ours.decoder, torch.tensor([21]), context)
        return pair.ours.decoder.logits(hidden)

    assert (logits(0) - logits(1)).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("generation", [1, 2])
def test_reading_the_answer_from_the_cache_equals_reading_all_at_once(pair, paligemma2, generation):
    model = pair.ours if generation == 1 else paligemma2
    prompts = prompts_of([(1, [11, 12, 13], [21, 22])])
    prompts.ids.masked_fill_(prompts.ids == IMAGE, model.config.image_id)
    whole = prompts.logits(model)
    before = Prompts(
        prompts.ids[:, :-2], prompts.valid[:, :-2], prompts.is_suffix[:, :-2], prompts.pixels
    )
    hidden, context = prefill(model.decoder, before.embedded(model), num_further_tokens=2)
    steps = [hidden] + [decode(model.decoder, prompts.ids[:, i], context) for i in (-2, -1)]
    found = model.decoder.logits(torch.cat(steps, dim=1))
    torch.testing.assert_close(found, whole[:, -3:], atol=ATOL, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_a_row(pair, side):
    rows = [(1, [11], [21, 22]), (1, [12] * 6, [24, 25, 26])]
    together = prompts_of(rows, side)
    logits = together.logits(pair.ours)
    for i, row in enumerate(rows):
        alone = prompts_of([row])
        assert together.pixels is not None
        alone.pixels = together.pixels[i : i + 1]
        torch.testing.assert_close(
            logits[i][together.valid[i]], alone.logits(pair.ours)[0], atol=ATOL, rtol=0
        )


@torch.no_grad()
def test_pictures_are_read_in_their_order(pair):
    prompts = prompts_of([(2, [11], [21])])
    logits = prompts.logits(pair.ours)
    assert prompts.pixels is not None
    prompts.pixels = prompts.pixels.flip(0)
    assert (prompts.logits(pair.ours) - logits).abs().max() > 1e-2


@torch.no_grad()
def test_raw_pictures_give_what_the_reference_s_image_processor_gives(pair):
    generator = torch.Generator().manual_seed(0)
    sizes = [(40, 60), (28, 28)]
    pictures = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]
    processor = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    prompts = prompts_of([(2, [11], [21])])
    prompts.pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    raw = pair.ours.config.prepare_pictures(pictures)
    found = pair.ours(prompts.ids, prompts.valid, raw, prompts.is_suffix)
    torch.testing.assert_close(found, prompts.logits(pair.ours), atol=ATOL, rtol=0)


def test_the_prefix_sees_all_of_itself_and_the_answer_what_came_before(pair):
    prompts = prompts_of([(1, [11], [21]), (1, [], [21])], "right")
    prefix = prompts.embedded(pair.ours)
    in_prefix, answer, end = [1] * 7 + [0] * 2, [1] * 8 + [0], [1] * 9
    assert attention_mask(prefix.valid, prefix.blocks)[0, 0].int().tolist() == [
        *[in_prefix] * 7,
        answer,
        end,
    ]
    shorter = [1] * 6 + [0] * 3
    assert attention_mask(prefix.valid, prefix.blocks)[1, 0].int().tolist() == [
        *[shorter] * 6,
        [1] * 7 + [0] * 2,
        [1] * 8 + [0],
        [1] * 9,  # padding may read itself, and nobody reads it
    ]
    assert prefix.positions.tolist() == [[*range(1, 10)], [*range(1, 9), 8]]


def test_the_window_of_paligemma_2_cuts_the_answer_and_not_the_prefix(pair):
    prefix = prompts_of([(1, [], [21, 22])]).embedded(pair.ours)
    near = attention_mask(prefix.valid, prefix.blocks, window=3, keeps_blocks=prefix.keeps_blocks)
    assert near[0, 0].int().tolist() == [
        *[[1, 1, 1, 1, 1, 1, 0, 0, 0]] * 6,
        [0, 0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1, 1],
    ]


def test_pictures_of_another_size_are_refused(pair):
    prompts = prompts_of([(1, [11], [21])])
    with pytest.raises(ConfigError, match=r"pictures of 42 x 28 px; this model reads 28 x 28"):
        pair.ours.embed_normalised(prompts.ids, prompts.valid, torch.zeros(1, 3, 42, 28))


@pytest.mark.parametrize("num_pictures", [0, 1, 3])
def test_more_or_fewer_pictures_than_placeholders_are_refused(pair, num_pictures):
    prompts = prompts_of([(2, [11], [21])])
    pixels = random_pixels(num_pictures) if num_pictures else None
    with pytest.raises(ConfigError, match=rf"give {4 * num_pictures} image tokens.* keep 8 places"):
        pair.ours.embed_normalised(prompts.ids, prompts.valid, pixels)


@torch.no_grad()
def test_bf16_stays_as_close_to_fp32_as_the_reference_in_bf16(pair):
    """Root mean square of the difference in logits: 1.2 % of their spread here and there; at most 2 %."""
    prompts = prompts_of([(2, [11, 12, 13], [21, 22, 23])])
    exact = prompts.logits(pair.ours)
    ours = prompts.logits(copy.deepcopy(pair.ours).bfloat16()).float()
    theirs = copy.deepcopy(pair.theirs).bfloat16()(**prompts.theirs()).logits.float()
    error, reference_error = ((x - exact).square().mean().sqrt() for x in (ours, theirs))
    assert error < 0.02 * exact.std()
    assert error < 1.2 * reference_error


@torch.no_grad()
def test_bf16_of_paligemma_2_stays_close_to_fp32(paligemma2, recorded_prompts):
    """The same; at most 2 % of the spread, too."""
    exact = recorded_prompts.logits(paligemma2)
    low = recorded_prompts.logits(copy.deepcopy(paligemma2).bfloat16()).float()
    error = (low - exact)[recorded_prompts.valid].square().mean().sqrt()
    assert error < 0.02 * exact.std()


@torch.no_grad()
@pytest.mark.parametrize("generation", [1, 2])
def test_bf16_weights_are_used_as_they_are(pair, paligemma2, generation):
    model = copy.deepcopy(pair.ours if generation == 1 else paligemma2).bfloat16()
    prompts = prompts_of([(1, [11], [21])])
    prompts.ids.masked_fill_(prompts.ids == IMAGE, model.config.image_id)
    with Fp32Copies() as copies:
        assert prompts.logits(model).dtype is torch.bfloat16
    assert copies.of_matrices(model) == set()
