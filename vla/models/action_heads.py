"""What reads the hidden states of the action slots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vla.tokenizers.action_bins import NUM_BINS, ActionLayout, ActionVocabulary


@dataclass(kw_only=True)
class ActionOutput:
    """What one forward pass says.

    Attributes:
        action_logits: (batch, steps, dims, 256) over the bins of every action number.
        token_logits: (batch, steps * dims, vocabulary) over all tokens; AUTOREGRESSIVE only.
        pointing_logits: (batch, views, image tokens) where the named object is; `grounding` only.
        target_from_tool_dm: (batch, 3) decimetres to the named object; `grounding` only.
    """

    action_logits: Tensor
    token_logits: Tensor | None = None
    pointing_logits: Tensor | None = None
    target_from_tool_dm: Tensor | None = None


class ParallelActionHead(nn.Module):
    """Learned slots, and the action rows of the output vocabulary, for decoding a chunk in one forward pass.

    With 256 rows a dimension one slot emits the tokens of a whole step, one out of each dimension's own
    rows; where all dimensions share 256 rows, each dimension of each step needs a slot of its own.
    Only action rows are held: no other token can be emitted.
    """

    def __init__(
        self, width: int, layout: ActionLayout, chunk_length: int, action_width: int
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


class TokenActionHead(nn.Module):
    """A head over the whole vocabulary, in which the actions are ordinary tokens read one after another."""

    def __init__(self, width: int, vocab_size: int, vocabulary: ActionVocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.lm_head = nn.Linear(width, vocab_size, bias=False)

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Returns logits over all tokens."""
        return self.lm_head(hidden)

    def token_ids(self, bins: Int[Tensor, "batch steps dims"]) -> Int[Tensor, "batch steps dims"]:
        """Returns the token id of every bin."""
        first_ids = torch.tensor(self.vocabulary.first_ids, device=bins.device)
        return first_ids + self.vocabulary.step * bins

    def bins(self, token_ids: Int[Tensor, "batch steps dims"]) -> Int[Tensor, "batch steps dims"]:
        """Returns the bin of every action token."""
        first_ids = torch.tensor(self.vocabulary.first_ids, device=token_ids.device)
        return (token_ids - first_ids) * self.vocabulary.step

    def bin_ids(self, dimension: int, device: torch.device) -> Int[Tensor, " bins"]:
        """Returns the ids of bins 0..255 of one dimension."""
        order = torch.arange(NUM_BINS, device=device)
        return self.vocabulary.first_ids[dimension] + self.vocabulary.step * order

    def action_logits(
        self, token_logits: Float[Tensor, "batch tokens vocabulary"]
    ) -> Float[Tensor, "batch steps dims bins"]:
        """Returns the logits over the bins alone, of tokens that stand for whole steps."""
        num_dims = len(self.vocabulary.first_ids)
        by_dim = token_logits.unflatten(1, (-1, num_dims))
        ids = torch.stack([self.bin_ids(dim, token_logits.device) for dim in range(num_dims)])
        return by_dim.gather(-1, ids.expand(*by_dim.shape[:2], -1, -1))


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
