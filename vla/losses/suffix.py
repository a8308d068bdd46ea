"""Cross-entropy on what the model is to say after the prefix: action bins, or tokens of the vocabulary."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla.tokenizers.action_bins import NUM_BINS


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
) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy, in nats, over tokens with `label_mask` True.

    `token_logits[:, i]` is the prediction of `token_ids[:, i]`: nothing is shifted here.
    """
    loss = F.cross_entropy(
        token_logits.float().flatten(0, 1), token_ids.flatten(), reduction="none"
    )
    counts = label_mask.flatten().to(loss.dtype)
    return (loss * counts).sum() / counts.sum().clamp(min=1.0)
