import math

import pytest
import torch

from vla.losses.suffix import action_cross_entropy, soft_bins, token_cross_entropy

torch.manual_seed(0)
LOGITS = torch.randn(2, 3, 7, 256)
BINS = torch.randint(0, 256, (2, 3, 7))
VALID = torch.tensor([[True, True, False], [True, False, False]])


def _naive(sigma_bins: float) -> float:
    losses = []
    for b, k in VALID.nonzero().tolist():
        for a in range(7):
            log_p = LOGITS[b, k, a] - LOGITS[b, k, a].exp().sum().log()
            true_bin = int(BINS[b, k, a])
            if sigma_bins == 0:
                losses.append(-float(log_p[true_bin]))
                continue
            weight = [math.exp(-((i - true_bin) ** 2) / 2 / sigma_bins**2) for i in range(256)]
            losses.append(
                -sum(w * float(p) for w, p in zip(weight, log_p, strict=True)) / sum(weight)
            )
    return sum(losses) / len(losses)


@pytest.mark.parametrize("sigma_bins", [0.0, 2.0])
def test_the_action_loss_agrees_with_a_loop_over_valid_tokens(sigma_bins):
    loss = action_cross_entropy(LOGITS, BINS, VALID, sigma_bins=sigma_bins)
    assert float(loss) == pytest.approx(_naive(sigma_bins), rel=1e-5)


def test_steps_that_do_not_count_leave_no_trace():
    changed, bins = LOGITS.clone(), BINS.clone()
    changed[~VALID] = 100.0
    bins[~VALID] = 0
    assert action_cross_entropy(changed, bins, VALID) == action_cross_entropy(LOGITS, BINS, VALID)


def test_a_batch_without_any_valid_step_costs_nothing():
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert float(action_cross_entropy(LOGITS, BINS, nothing)) == 0.0


def test_logits_in_bf16_are_summed_in_fp32():
    loss = action_cross_entropy(LOGITS.bfloat16(), BINS, VALID, sigma_bins=2.0)
    assert loss.dtype is torch.float32
    assert float(loss) == pytest.approx(_naive(2.0), rel=1e-2)


def test_soft_bins_sum_to_one_even_at_the_ends_and_peak_at_the_true_bin():
    table = soft_bins(3.0)
    torch.testing.assert_close(table.sum(dim=1), torch.ones(256))
    assert table.argmax(dim=1).tolist() == list(range(256))
    assert table[0, 1] / table[0, 0] == pytest.approx(math.exp(-1 / 18), rel=1e-4)


def test_the_token_loss_is_the_mean_over_labelled_tokens():
    logits, ids = torch.randn(2, 4, 11), torch.randint(0, 11, (2, 4))
    mask = torch.tensor([[False, True, True, False], [False, False, False, True]])
    naive = [-logits[b, t].log_softmax(0)[ids[b, t]] for b, t in mask.nonzero().tolist()]
    torch.testing.assert_close(token_cross_entropy(logits, ids, mask), torch.stack(naive).mean())
