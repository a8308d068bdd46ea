"""Cross-entropy of answers that name places, where a near miss may cost less than a far one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def answer_nats(
    token_logits: Float[Tensor, "tokens vocabulary"],
    token_ids: Int[Tensor, " tokens"],
    *,
    first_location: int = 0,
    num_locations: int = 0,
    sigma: float = 0.0,
) -> Float[Tensor, " tokens"]:
    """Returns the cross-entropy of every token, in nats and fp32.

    Locations have an order. With `sigma` > 0 the target of a location token is a Gaussian over its neighbours; that of
    all other tokens stays the one true token. PaliGemma has sigma = 0; at a small scale the 1024 tokens would have to
    be learnt one by one.

    Args:
        token_logits: `token_logits[i]` predicts `token_ids[i]`.
        token_ids: the true tokens.
        first_location: id of <loc0000>; those of the others follow.
        num_locations: how many there are.
        sigma: width of the Gaussian, in locations.
    """
    logits = token_logits.float()
    nats = F.cross_entropy(logits, token_ids, reduction="none")
    if sigma <= 0:
        return nats
    offsets = token_ids - first_location
    is_location = (offsets >= 0) & (offsets < num_locations)
    logits, offsets = logits[is_location], offsets[is_location]
    order = torch.arange(num_locations, device=logits.device)
    targets = (-0.5 * ((order - offsets[:, None]).float() / sigma).square()).softmax(dim=-1)
    places = logits[:, first_location : first_location + num_locations]
    soft = logits.logsumexp(dim=-1) - (targets * places).sum(dim=-1)
    return nats.masked_scatter(is_location, soft)


def mean_of_answers(
    nats: Float[Tensor, " tokens"], answers: Int[Tensor, " tokens"]
) -> Float[Tensor, ""]:
    """Returns the mean over answers of the mean over each answer's tokens: PaliGemma's weighting (big_vision).

    Args:
        nats: of every token.
        answers: number of the answer it belongs to, 0, 1, 2, ...; none is left out.
    """
    counts = answers.bincount()
    return (nats / counts[answers]).sum() / counts.numel()


def pointing_nats(
    logits: Float[Tensor, "tokens patches"], boxes: Float[Tensor, "tokens 4"]
) -> Float[Tensor, ""]:
    """Returns the mean over tokens that have a box of -log of the probability that falls into it; 0 without any.

    Args:
        logits: over the patches of a square picture, row by row.
        boxes: y_min, x_min, y_max, x_max in shares of the picture; negative where a token has none.
    """
    side = math.isqrt(logits.shape[-1])
    centres = (torch.arange(side, device=boxes.device) + 0.5) / side

    def covered(low: Tensor, high: Tensor) -> Tensor:
        """Along one axis: patches whose centre lies inside, and the one that holds the middle."""
        inside = (centres >= low[:, None]) & (centres <= high[:, None])
        middle = ((low + high) / 2 * side).long().clamp(0, side - 1)
        return inside | (torch.arange(side, device=boxes.device) == middle[:, None])

    rows, columns = covered(boxes[:, 0], boxes[:, 2]), covered(boxes[:, 1], boxes[:, 3])
    is_target = (rows[:, :, None] & columns[:, None, :]).flatten(1)
    scores = logits.float()
    nats = scores.logsumexp(dim=-1) - scores.masked_fill(~is_target, -math.inf).logsumexp(dim=-1)
    has_box = boxes[:, 0] >= 0
    return nats[has_box].sum() / has_box.sum().clamp(min=1)


def smooth_locations(num_locations: int, width: int, deviation: float) -> Tensor:
    """Returns embeddings of places (num_locations, width) that are the more alike the nearer the places are.

    Cosines and sines of the place, from half a turn over the picture to one turn in 16 places; so a place can be read
    off, and said, by linear maps from the start, where random rows would be learnt one by one.
    """
    half = width // 2
    turns = torch.logspace(math.log2(0.5), math.log2(num_locations / 16), half, base=2.0)
    place = torch.arange(num_locations)[:, None] / num_locations
    angle = 2 * math.pi * place * turns
    table = torch.zeros(num_locations, width)
    table[:, :half], table[:, half : 2 * half] = angle.cos(), angle.sin()
    return table * (math.sqrt(2) * deviation)
