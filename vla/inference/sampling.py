"""Choosing one entry a row from logits; what must not be chosen is left out of the logits beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an entry is drawn; the default takes the likeliest."""

    temperature: float = (
        0.0  # logits are divided by it; 0 takes the likeliest, whatever the rest says
    )
    top_k: int = 0  # only the k likeliest can be drawn; 0: all
    top_p: float = (
        1.0  # only the likeliest that together reach this probability can be drawn; 1: all
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(
                f"temperature = {self.temperature}; give a number from 0 (greedy) upwards"
            )
        if self.top_k < 0:
            raise ConfigError(f"top_k = {self.top_k}; give the number of candidates, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p = {self.top_p}; give a probability above 0 and up to 1 (all)")


GREEDY = Sampling()


def choose(
    logits: Float[Tensor, "*batch entries"],
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Returns the chosen entries and the probability of each under the distribution it was drawn from.

    The probability of a greedy choice is the one at temperature 1.

    Args:
        logits: over the entries of each row.
        sampling: how to draw.
        generator: source of randomness when the temperature is above 0.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        probability, chosen = logits.softmax(dim=-1).max(dim=-1)
        return chosen, probability
    probabilities = _truncated(logits / sampling.temperature, sampling).softmax(dim=-1)
    rows = probabilities.flatten(0, -2)
    chosen = torch.multinomial(rows, 1, generator=generator).view(logits.shape[:-1])
    return chosen, probabilities.gather(-1, chosen[..., None])[..., 0]


def cautious(
    logits: Float[Tensor, "*batch dims bins"],
    share: float,
    rest_bins: Int[Tensor, " dims"] | None = None,
) -> tuple[Int[Tensor, "*batch dims"], Float[Tensor, "*batch dims"]]:
    """Returns, of the bins in the middle of each distribution, the one nearest to rest, and its probability.

    Where all numbers of a chunk are read at once, the most probable bins of several need not belong together. When the
    end of a descent is uncertain by a step, "still going down" is spread over many bins and "up again" is a single one:
    the mode lifts an arm that has not closed its hand. What most of the probability agrees on does not, and where it
    is divided the smaller motion is the one that can be corrected by the next look. The larger the share, the more
    often that is no motion at all.

    Args:
        logits: over bins that are in the order of what they mean.
        share: of the probability, half of it on either side of the median, to choose from, 0 to 1; 0 is the median.
        rest_bins: of each dimension the bin that changes nothing, or -1 where there is none: there the median counts,
            as it does everywhere when None is given.
    """
    probabilities = logits.float().softmax(dim=-1)
    below = probabilities.cumsum(dim=-1)
    low, middle, high = (
        (below < bound).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
        for bound in (0.5 - share / 2, 0.5, 0.5 + share / 2)
    )
    chosen = middle
    if rest_bins is not None:
        rest = rest_bins.to(logits.device)
        chosen = torch.where(rest < 0, middle, torch.clamp(rest, min=low, max=high))
    return chosen, probabilities.gather(-1, chosen[..., None])[..., 0]


def _truncated(logits: Tensor, sampling: Sampling) -> Tensor:
    """The logits with those out of the draw at minus infinity: first top-k, then top-p of what is left."""
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities  # the likeliest is always in
        ordered = ordered.masked_fill(before >= sampling.top_p, -math.inf)
        logits = torch.empty_like(logits).scatter_(-1, order, ordered)
    return logits
