"""Position of every token in its sequence, counted so that padding takes none."""

from __future__ import annotations

from jaxtyping import Bool, Int
from torch import Tensor


def positions_from_valid(
    valid_mask: Bool[Tensor, "batch tokens"],
) -> Int[Tensor, "batch tokens"]:
    """Returns 0, 1, 2, ... over the valid tokens of each row.

    A padding token repeats the position before it (0 at the start of a row): nobody attends to it, and a
    padded row gives its valid tokens the positions they would have without padding.
    """
    return (valid_mask.cumsum(dim=1) - 1).clamp(min=0)
