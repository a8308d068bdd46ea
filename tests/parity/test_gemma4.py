"""Our Gemma 4, as E2B, against transformers 5.5.4; and of every form, that pictures, caches and bf16 do as they should.

Forms that 5.5.4 masks otherwise, or does not know, are compared in test_gemma4_recorded.py.
"""

import copy
from dataclasses import replace

import pytest
import torch
from fp32_copies import Fp32Copies
from reference_gemma4 import (
    ATOL,
    BOS,
    CASES,
    END,
    FORMS,
    IMAGE,
    PICTURE,
    START,
    Pair,
    Prompts,
    e2b_like,
    prompts_of,
)
from torch import Tensor

from vla.inference.generate import decode, generate, prefill
from vla.losses.suffix import token_cross_entropy
from vla.models.backbones.gemma4 import Gemma4
from vla.models.backbones.gemma4_config import PictureAttention
from vla.models.sequence import read

NUM_NEW = 6


@pytest.fixture(scope="module")
def pair() -> Pair:
    return e2b_like()


@pytest.fixture(scope="module", params=FORMS, ids=str)
def form(request) -> tuple[Gemma4, Prompts]:
    return FORMS[request.param]()


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
def test_the_loss_agrees(pair, prompts):
    is_label = prompts.valid & (prompts.ids != IMAGE)
    is_label[:, 1:] &= prompts.valid[:, :-1]  # what stands after padding is predicted by padding
    labels = prompts.ids.masked_fill(~is_label, -100)
    theirs = pair.theirs(**prompts.theirs(), labels=labels).loss
    logits = prompts.logits(pair.ours)[:, :-1]
    ours = token_cross_entropy(logits, prompts.ids[:, 1:], is_label[:, 1:])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_greedy_tokens_agree(pair, name):
    """On whichever side ours is padded: the reference goes on after the padding, so it takes left padding alone."""
    rows, grids, side = CASES[name]
    left = prompts_of(rows, grids, "left")
    theirs = pair.theirs.generate(
        **left.theirs(), do_sample=False, max_new_tokens=NUM_NEW, eos_token_id=None
    )
    prefix = prompts_of(rows, grids, side).embedded(pair.ours)
    ours = generate(pair.ours.decoder, prefix, max_tokens=NUM_NEW)
    assert ours.tokens.tolist() == theirs[:, left.ids.shape[1] :].tolist()


@torch.no_grad()
def test_another_picture_changes_the_logits_of_what_is_read_after_it_from_the_cache(form):
    model, prompts = form

    def logits(patches: Tensor) -> Tensor:
        prefix = replace(prompts, patches=patches).embedded(model)
        _, context = prefill(model.decoder, prefix, num_further_tokens=1)
        return model.decoder.logits(decode(model.decoder, torch.tensor([7, 7]), context))

    difference = (logits(prompts.patches) - logits(prompts.patches.flip(-1))).abs()
    assert difference.amax(dim=-1)[1] > 1e-3  # both rows of a recording, one of ours has a picture


@torch.no_grad()
def test_reading_words_from_the_cache_equals_reading_all_at_once(form):
    model, prompts = form
    more = torch.tensor([[7, 8], [9, 10]])
    longer = replace(
        prompts,
        ids=torch.cat([prompts.ids, more], dim=1),
        valid=torch.cat([prompts.valid, torch.ones_like(more, dtype=torch.bool)], dim=1),
    )
    hidden, context = prefill(model.decoder, prompts.embedded(model), num_further_tokens=2)
    steps = [hidden] + [decode(model.decoder, more[:, i], context) for i in (0, 1)]
    found = model.decoder.logits(torch.cat(steps, dim=1))
    torch.testing.assert_close(found, longer.logits(model)[:, -3:], atol=ATOL, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_a_row(pair, side):
    rows, grids = [[7, PICTURE, 8], [PICTURE, *range(10, 25)]], [(2, 3), (1, 2)]
    together = prompts_of(rows, grids, side)
    logits = together.logits(pair.ours)
    for i, (row, grid) in enumerate(zip(rows, grids, strict=True)):
        alone = prompts_of([row], [grid])
        assert together.patches is not None
        assert together.places is not None
        alone.patches, alone.places = together.patches[i : i + 1], together.places[i : i + 1]
        torch.testing.assert_close(
            logits[i][together.valid[i]], alone.logits(pair.ours)[0], atol=ATOL, rtol=0
        )


def test_a_picture_is_causal_everywhere_in_the_small_models(pair):
    assert pair.ours.config.picture_attention is PictureAttention.CAUSAL
    prefix = prompts_of([[PICTURE, 7]], [(2, 3)]).embedded(pair.ours)
    assert prefix.near_blocks is None
    assert prefix.blocks.tolist() == [list(range(10))]


def test_per_layer_embeddings_look_up_the_padding_id_where_an_image_token_stands(pair):
    prompts = prompts_of([[PICTURE, 7]], [(1, 2)])
    assert prompts.ids.tolist() == [[BOS, START, IMAGE, IMAGE, END, 7]]
    token_ids = prompts.embedded(pair.ours).token_ids
    assert token_ids is not None
    assert token_ids.tolist() == [[BOS, START, 0, 0, END, 7]]


@torch.no_grad()
def test_bf16_stays_as_close_to_fp32_as_the_reference_in_bf16(pair):
    """Root mean square of the difference in logits: 2.1 % of their spread, 2.0 % in the reference; at most 3 %."""
    prompts = prompts_of(*CASES["two pictures of different shape"])
    exact = prompts.logits(pair.ours)
    ours = prompts.logits(copy.deepcopy(pair.ours).bfloat16()).float()
    theirs = copy.deepcopy(pair.theirs).bfloat16()(**prompts.theirs()).logits.float()
    error, reference_error = ((x - exact).square().mean().sqrt() for x in (ours, theirs))
    assert error < 0.03 * exact.std()
    assert error < 1.2 * reference_error


@torch.no_grad()
def test_bf16_weights_are_used_as_they_are(form):
    model, prompts = copy.deepcopy(form[0]).bfloat16(), form[1]
    with Fp32Copies() as copies:
        assert prompts.logits(model).dtype is torch.bfloat16
    assert copies.of_matrices(model) == set()
