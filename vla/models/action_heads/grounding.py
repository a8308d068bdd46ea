"""Where the named object is: auxiliary outputs of the first action slot."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GroundingHead(nn.Module):
    """Auxiliary outputs of the first action slot: where the named object is, in pictures and relative to the tool.

    Pointing compares a projection of the slot with a projection of the final hidden states at the image
    tokens, which have read the instruction when the prefix attends to all of itself.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.offset = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))

    def forward(
        self,
        slot: Float[Tensor, "batch width"],
        image_hidden: Float[Tensor, "batch views patches width"],
    ) -> tuple[Float[Tensor, "batch views patches"], Float[Tensor, "batch 3"]]:
        """Returns pointing logits over the patches of each view, and target_from_tool in decimetres."""
        query = self.query(slot) / math.sqrt(slot.shape[-1])
        pointing = torch.einsum("bw,bvpw->bvp", query, self.key(image_hidden))
        return pointing, self.offset(slot)
