"""Choosing bins from logits that hold the action rows alone, so that nothing else can ever be chosen."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def choose_bins(
    action_logits: Float[Tensor, "*batch bins"],
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Returns the chosen bins and the probability of each under the distribution it was drawn from.

    Args:
        action_logits: over the bins of one action number.
        temperature: 0 takes the likeliest bin (its probability is the one at temperature 1).
        generator: source of randomness when temperature > 0.
    """
    logits = action_logits.float()
    if temperature == 0:
        probability, bins = logits.softmax(dim=-1).max(dim=-1)
        return bins, probability
    probabilities = (logits / temperature).softmax(dim=-1)
    rows = probabilities.flatten(0, -2)
    bins = torch.multinomial(rows, 1, generator=generator).view(logits.shape[:-1])
    return bins, probabilities.gather(-1, bins[..., None])[..., 0]
