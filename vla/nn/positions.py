"""Position of every token in its sequence, counted so that padding takes none, and who comes last."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def positions_from_valid(
    valid_mask: Bool[Tensor, "batch tokens"],
) -> Int[Tensor, "batch tokens"]:
    """Returns 0, 1, 2, ... over the valid tokens of each row.

    A padding token repeats the position before it (0 at the start of a row): nobody attends to it, and a
    padded row gives its valid tokens the positions they would have without padding.
    """
    return (valid_mask.cumsum(dim=1) - 1).clamp(min=0)


def last_valid(
    x: Float[Tensor, "batch tokens width"], valid_mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch 1 width"]:
    """Returns the last valid token of each row."""
    order = torch.arange(valid_mask.shape[1], device=x.device)
    last = torch.where(valid_mask, order, 0).amax(dim=1)
    return x[torch.arange(x.shape[0], device=x.device), last][:, None]
