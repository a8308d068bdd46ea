"""Cross-entropy of answers that name places, where a near miss may cost less than a far one."""

from __future__ import annotations

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
