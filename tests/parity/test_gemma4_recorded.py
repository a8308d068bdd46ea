"""Our Gemma 4, as 31B and without an encoder, against recorded outputs of transformers 5.23.0 (scripts/make_golden.py).

5.5.4 masks pictures of the 31B otherwise (transformers issue 46711), and does not know the form without an encoder.
"""

import copy

import pytest
import torch
from reference_gemma4 import (
    ATOL,
    Prompts,
    Recording,
    as_31b,
    num_values,
    random_pictures,
    woven,
    woven_in_5_23,
)

from vla.inference.generate import generate
from vla.losses.suffix import token_cross_entropy
from vla.models.sequence import read
from vla.nn.masks import attention_mask

RECORDINGS = {"as 31B": as_31b, "woven": woven, "woven, in 5.23.0": woven_in_5_23}


@pytest.fixture(scope="module", params=RECORDINGS, ids=str)
def recording(request) -> Recording:
    """The last with the mask of forward and generate in 5.23.0, where a picture sees all of itself in all layers."""
    return RECORDINGS[request.param]()


@torch.no_grad()
def test_hidden_states_and_logits_agree(recording, request):
    is_near = request.node.callspec.params["recording"] == "woven"  # recorded beside the other mask
    model, prompts = recording.model, recording.prompts
    tokens = model.image_tokens(prompts.patches, prompts.places)
    torch.testing.assert_close(tokens, recording.expected("image_tokens"), atol=ATOL, rtol=0)
    hidden = read(model.decoder, prompts.embedded(model))
    for ours, name in ((hidden, "hidden"), (model.decoder.logits(hidden), "logits")):
        theirs = recording.expected(f"near_{name}" if is_near else name)
        torch.testing.assert_close(ours[prompts.valid], theirs[prompts.valid], atol=ATOL, rtol=0)


@pytest.mark.parametrize("make", [as_31b, woven_in_5_23])
def test_the_loss_and_greedy_tokens_agree(make):
    recording = make()
    labels = recording.tensors["input.labels"][:, 1:]
    with torch.no_grad():
        logits = recording.prompts.logits(recording.model)[:, :-1]
    loss = token_cross_entropy(logits, labels, labels >= 0)
    torch.testing.assert_close(loss, recording.expected("loss"), atol=1e-6, rtol=0)
    prefix = recording.prompts.embedded(recording.model)
    found = generate(recording.model.decoder, prefix, max_tokens=8)
    assert found.tokens.tolist() == recording.expected("generated").tolist()


@pytest.mark.parametrize(("make", "size"), [(as_31b, (2, 8)), (woven, (1, 4))])
def test_a_picture_sees_itself_in_windowed_layers_as_far_as_the_window_reaches(make, size):
    """BOS, start, a picture of four tokens, end, a word; the window is four tokens, back from each."""
    model = make().model
    ids = torch.tensor([[2, 303, 300, 300, 300, 300, 304, 5]])
    prompts = Prompts(ids, ids > 0, *random_pictures([size], num_values(model)))
    prefix = prompts.embedded(model)
    assert prefix.near_blocks is not None
    near = attention_mask(prefix.valid, prefix.near_blocks, window=4)
    assert near[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 1, 1, 1, 1],
    ]
    full = attention_mask(prefix.valid, prefix.blocks)[0, 0]
    assert torch.equal(full, torch.ones(8, 8, dtype=torch.bool).tril())


@torch.no_grad()
@pytest.mark.parametrize("make", [as_31b, woven])
def test_bf16_stays_close_to_fp32(make):
    """Root mean square of the difference in logits: 2.8 and 2.4 % of their spread; at most 4 %."""
    recording = make()
    exact = recording.prompts.logits(recording.model)
    low = recording.prompts.logits(copy.deepcopy(recording.model).bfloat16()).float()
    valid = recording.prompts.valid
    error = (low - exact)[valid].square().mean().sqrt()
    assert error < 0.04 * exact.std()
