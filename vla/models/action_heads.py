"""What reads the hidden states of the action slots."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.nn.mlp import Activation, PlainMLP
from vla.tokenizers.action_bins import NUM_BINS, ActionLayout


class ParallelActionHead(nn.Module):
    """Learned slots, and the action rows of the output vocabulary, for decoding a chunk in one forward pass.

    With 256 rows a dimension one slot emits the tokens of a whole step, one out of each dimension's own
    rows; where all dimensions share 256 rows, each dimension of each step needs a slot of its own.
    Only action rows are held: no other token can be emitted.
    """

    def __init__(
        self, width: int, *, layout: ActionLayout, chunk_length: int, action_width: int
    ) -> None:
        super().__init__()
        self.chunk_length, self.action_width = chunk_length, action_width
        tokens_per_slot = action_width if layout is ActionLayout.PER_DIMENSION else 1
        self.num_slots = chunk_length * action_width // tokens_per_slot
        self.slots = nn.Parameter(torch.zeros(self.num_slots, width))
        self.rows = nn.Linear(width, tokens_per_slot * NUM_BINS, bias=False)

    def forward(
        self, hidden: Float[Tensor, "batch slots width"]
    ) -> Float[Tensor, "batch steps dims bins"]:
        """Returns logits over the bins of every action number."""
        logits = self.rows(hidden)
        return logits.view(hidden.shape[0], self.chunk_length, self.action_width, NUM_BINS)


class GroundingHead(nn.Module):
    """Auxiliary outputs of the first action slot: where the named object is, in pictures and relative to the tool.

    Pointing compares a projection of the slot with a projection of the final hidden states at the image
    tokens, which have read the instruction when the prefix attends to all of itself.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.offset = PlainMLP(width, width, Activation.GELU)
        self.offset_out = nn.Linear(width, 3)

    def forward(
        self,
        slot: Float[Tensor, "batch width"],
        image_hidden: Float[Tensor, "batch views patches width"],
    ) -> tuple[Float[Tensor, "batch views patches"], Float[Tensor, "batch 3"]]:
        """Returns pointing logits over the patches of each view, and target_from_tool in decimetres."""
        query = self.query(slot) / math.sqrt(slot.shape[-1])
        pointing = torch.einsum("bw,bvpw->bvp", query, self.key(image_hidden))
        return pointing, self.offset_out(self.offset(slot))
