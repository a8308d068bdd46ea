import pytest
import torch

from vla.models.action_heads import (
    FlowActionHead,
    GroundingHead,
    L1ActionHead,
    ParallelActionHead,
    TokenActionHead,
)
from vla.models.action_heads.flow import sinusoids
from vla.tokenizers.action_bins import ActionLayout, ActionVocabulary


@pytest.mark.parametrize(
    ("layout", "num_slots"),
    [(ActionLayout.PER_DIMENSION, 4), (ActionLayout.NEW_256, 28), (ActionLayout.LAST_256, 28)],
)
def test_a_slot_emits_a_whole_step_only_where_each_dimension_has_its_own_rows(layout, num_slots):
    head = ParallelActionHead(16, layout, 4, 7)
    assert head.num_slots == num_slots
    assert head(torch.randn(2, num_slots, 16)).shape == (2, 4, 7, 256)


def test_the_rows_of_a_dimension_follow_the_order_of_its_token_ids():
    head = ParallelActionHead(16, ActionLayout.PER_DIMENSION, 2, 7)
    hidden = torch.randn(1, 2, 16)
    row = head.rows.weight[256 * 3 + 10]  # dimension 3, bin 10
    torch.testing.assert_close(head(hidden)[0, 1, 3, 10], hidden[0, 1] @ row)


@pytest.mark.parametrize("layout", list(ActionLayout))
def test_action_logits_are_those_of_the_ids_of_each_bin(layout):
    vocabulary = ActionVocabulary(layout, 600, 3)
    vocab_size = 600 + vocabulary.num_new_ids
    head = TokenActionHead(vocabulary)
    token_logits = torch.randn(2, 6, vocab_size)  # two steps of three numbers
    action_logits = head.action_logits(token_logits)
    bins = torch.randint(0, 256, (2, 2, 3))
    ids = head.token_ids(bins)
    assert ids.tolist() == vocabulary.ids(bins.numpy()).tolist()
    chosen = action_logits.gather(-1, bins[..., None])[..., 0]
    expected = token_logits.view(2, 2, 3, -1).gather(-1, ids[..., None])[..., 0]
    torch.testing.assert_close(chosen, expected)


def test_pointing_compares_the_slot_with_each_image_token():
    head = GroundingHead(16)
    slot, image_hidden = torch.randn(2, 16), torch.randn(2, 3, 5, 16)
    pointing, offset = head(slot, image_hidden)
    expected = head.query(slot)[1] @ head.key(image_hidden[1, 2, 4]) / 16**0.5
    assert offset.shape == (2, 3)
    torch.testing.assert_close(pointing[1, 2, 4], expected, atol=1e-5, rtol=1e-5)


def test_continuous_heads_have_one_suffix_token_a_step_and_read_one_number_a_dimension():
    l1, flow = L1ActionHead(16, 4, 7), FlowActionHead(16, 4, 7)
    noisy, time = torch.randn(2, 4, 7), torch.rand(2)
    suffixes = l1.suffix(2), flow.suffix(noisy, time)
    assert [suffix.shape for suffix in suffixes] == [(2, 4, 16)] * 2
    outputs = l1.read(suffixes[0]), flow.read(suffixes[1])
    assert outputs[0].actions.shape == outputs[1].velocity.shape == (2, 4, 7)
    assert outputs[0].action_logits is outputs[1].action_logits is None


def test_each_suffix_token_of_a_flow_knows_its_own_step_and_the_time():
    flow = FlowActionHead(16, 4, 7)
    noisy, time = torch.randn(1, 4, 7), torch.tensor([0.3])
    other = noisy.clone()
    other[:, 2] += 1.0
    before, after = flow.suffix(noisy, time), flow.suffix(other, time)
    assert ((before - after).abs().amax(dim=-1) > 1e-6).tolist() == [[False, False, True, False]]
    later = flow.suffix(noisy, time + 0.01)
    assert ((before - later).abs().amax(dim=-1) > 1e-6).all()


def test_the_time_is_told_by_sines_and_cosines_of_periods_from_a_250th_to_four():
    times = torch.tensor([0.0, 0.25])
    found = sinusoids(times, 8)
    periods = torch.tensor([0.004, 0.04, 0.4, 4.0])
    angle = 2 * torch.pi * times[:, None] / periods
    torch.testing.assert_close(found, torch.cat([angle.sin(), angle.cos()], 1), atol=1e-4, rtol=0)
