import math

import pytest
import torch

from vla.losses.suffix import (
    Mean,
    action_cross_entropy,
    soft_bins,
    token_cross_entropy,
    z_loss,
)

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


TOKEN_LOGITS, IDS = 3 * torch.randn(3, 4, 11), torch.randint(0, 11, (3, 4))
LABELS = torch.tensor(  # three labels, one label, none
    [[False, True, True, True], [False, False, False, True], [False, False, False, False]]
)


def naive_means(value) -> dict[Mean, float]:
    """The mean over all labels, and the mean of the means of the examples that have any."""
    by_example = [[value(b, t) for t in range(4) if LABELS[b, t]] for b in range(3)]
    labelled = [values for values in by_example if values]
    return {
        Mean.TOKENS: sum(value for values in labelled for value in values)
        / sum(len(values) for values in labelled),
        Mean.EXAMPLES: sum(sum(values) / len(values) for values in labelled) / len(labelled),
    }


def log_normaliser(b: int, t: int) -> float:
    return math.log(sum(math.exp(value) for value in TOKEN_LOGITS[b, t].double().tolist()))


def nats(b: int, t: int) -> float:
    return log_normaliser(b, t) - float(TOKEN_LOGITS[b, t, IDS[b, t]])


@pytest.mark.parametrize("mean", Mean)
def test_the_token_loss_agrees_with_a_loop_over_labels(mean):
    loss = token_cross_entropy(TOKEN_LOGITS, IDS, LABELS, mean=mean)
    assert float(loss) == pytest.approx(naive_means(nats)[mean], abs=1e-6)


@pytest.mark.parametrize("mean", Mean)
def test_the_z_loss_agrees_with_a_loop_over_labels(mean):
    expected = naive_means(lambda b, t: log_normaliser(b, t) ** 2)[mean]
    assert float(z_loss(TOKEN_LOGITS, LABELS, mean=mean)) == pytest.approx(expected, rel=1e-6)


def test_the_two_means_differ_where_suffixes_differ_in_length():
    means = naive_means(nats)
    assert abs(means[Mean.TOKENS] - means[Mean.EXAMPLES]) > 0.01


@pytest.mark.parametrize("mean", Mean)
def test_tokens_without_a_label_leave_no_trace_whatever_their_id(mean):
    logits = torch.where(LABELS[..., None], TOKEN_LOGITS, 50.0).requires_grad_()
    loss = token_cross_entropy(logits, IDS.masked_fill(~LABELS, -100), LABELS, mean=mean)
    assert float(loss.detach()) == pytest.approx(
        float(token_cross_entropy(TOKEN_LOGITS, IDS, LABELS, mean=mean))
    )
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[~LABELS].any()


@pytest.mark.parametrize("mean", Mean)
def test_tokens_without_any_label_cost_nothing(mean):
    nothing = torch.zeros_like(LABELS)
    assert float(token_cross_entropy(TOKEN_LOGITS, IDS, nothing, mean=mean)) == 0.0
    assert float(z_loss(TOKEN_LOGITS, nothing, mean=mean)) == 0.0


def test_token_logits_in_bf16_are_summed_in_fp32():
    loss = token_cross_entropy(TOKEN_LOGITS.bfloat16(), IDS, LABELS)
    assert loss.dtype is torch.float32
