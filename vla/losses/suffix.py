"""Cross-entropy on what the model is to say after the prefix: action bins, or tokens of the vocabulary."""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla.tokenizers.action_bins import NUM_BINS


class Mean(Enum):
    """What counts alike when tokens are averaged; the two differ where suffixes differ in length."""

    TOKENS = "tokens"  # every labelled token of the batch: transformers, OpenVLA
    EXAMPLES = "examples"  # every example, whatever its length: PaliGemma (big_vision)


def action_cross_entropy(
    action_logits: Float[Tensor, "batch steps dims bins"],
    action_bins: Int[Tensor, "batch steps dims"],
    action_valid: Bool[Tensor, "batch steps"],
    *,
    sigma_bins: float = 0.0,
) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy, in nats, over the action tokens of valid steps.

    Args:
        action_logits: over the 256 bins.
        action_bins: the true bins, 0..255.
        action_valid: False for steps that do not count.
        sigma_bins: width of the Gaussian over neighbouring bins that replaces the one true bin; bins have an
            order, and a near miss should cost less than a far one. 0 keeps the one true bin.
    """
    log_probability = action_logits.float().log_softmax(dim=-1)
    if sigma_bins > 0:
        targets = soft_bins(sigma_bins, action_logits.device)[action_bins]
        loss = -(targets * log_probability).sum(dim=-1)
    else:
        loss = -log_probability.gather(-1, action_bins[..., None])[..., 0]
    counts = action_valid[..., None].to(loss.dtype)
    return (loss * counts).sum() / (counts.sum() * loss.shape[-1]).clamp(min=1.0)


def soft_bins(sigma_bins: float, device: torch.device | None = None) -> Float[Tensor, "bins bins"]:
    """Returns a row of target probabilities for every true bin: a Gaussian around it, summing to 1 within 0..255."""
    order = torch.arange(NUM_BINS, dtype=torch.float32, device=device)
    return (-0.5 * ((order - order[:, None]) / sigma_bins) ** 2).softmax(dim=-1)


def token_cross_entropy(
    token_logits: Float[Tensor, "batch tokens vocabulary"],
    token_ids: Int[Tensor, "batch tokens"],
    label_mask: Bool[Tensor, "batch tokens"],
    *,
    mean: Mean = Mean.TOKENS,
) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy, in nats, over tokens with `label_mask` True.

    `token_logits[:, i]` is the prediction of `token_ids[:, i]`: nothing is shifted here.

    Args:
        token_logits: over the vocabulary.
        token_ids: the true tokens; anything where `label_mask` is False.
        label_mask: True for tokens that count.
        mean: over all tokens, or over each example first; examples without a label then do not count.
    """
    return mean_over(token_nats(token_logits, token_ids, label_mask), label_mask, mean)


def token_nats(
    token_logits: Float[Tensor, "batch tokens vocabulary"],
    token_ids: Int[Tensor, "batch tokens"],
    label_mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, "batch tokens"]:
    """Returns the cross-entropy of every token in fp32; those with `label_mask` False have no meaning."""
    ids = token_ids.masked_fill(~label_mask, 0)  # -100 and the like index nothing
    nats = F.cross_entropy(token_logits.float().flatten(0, 1), ids.flatten(), reduction="none")
    return nats.view(label_mask.shape)


def z_loss(
    token_logits: Float[Tensor, "batch tokens vocabulary"],
    label_mask: Bool[Tensor, "batch tokens"],
    *,
    mean: Mean = Mean.TOKENS,
) -> Float[Tensor, ""]:
    """Returns the mean square of log sum exp(logits): weighted by some 1e-4, it keeps logits from drifting away.

    Source: PaLM (Chowdhery et al. 2022), section 5; arguments as in `token_cross_entropy`.
    """
    return mean_over(token_logits.float().logsumexp(dim=-1).square(), label_mask, mean)


def mean_over(
    values: Float[Tensor, "batch tokens"], label_mask: Bool[Tensor, "batch tokens"], mean: Mean
) -> Float[Tensor, ""]:
    """Returns the mean of `values` where `label_mask` is True; 0 where it nowhere is."""
    counts = label_mask.to(values.dtype)
    if mean is Mean.TOKENS:
        return (values * counts).sum() / counts.sum().clamp(min=1.0)
    by_example = (values * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1.0)
    return by_example.sum() / label_mask.any(dim=1).sum().clamp(min=1)
