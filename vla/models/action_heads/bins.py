"""Actions as bins: all of a chunk out of one forward pass, or token after token out of the whole vocabulary."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vla.models.action_heads.output import ActionOutput
from vla.tokenizers.action_bins import NUM_BINS, ActionLayout, ActionVocabulary


class ParallelActionHead(nn.Module):
    """Learned slots, and the action rows of the output vocabulary, for decoding a chunk in one forward pass.

    With 256 rows a dimension one slot emits the tokens of a whole step, one out of each dimension's own
    rows; where all dimensions share 256 rows, each dimension of each step needs a slot of its own.
    Only action rows are held: no other token can be emitted.
    """

    is_suffix_parallel = True

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

    def suffix(self, batch_size: int) -> Float[Tensor, "batch slots width"]:
        """Returns the slots, what the decoder reads after the prefix."""
        return self.slots.expand(batch_size, -1, -1)

    def read(self, hidden: Float[Tensor, "batch slots width"]) -> ActionOutput:
        """Returns what the hidden states of the suffix say."""
        return ActionOutput(action_logits=self(hidden))


class TokenActionHead(nn.Module):
    """Actions as ordinary tokens of the vocabulary, read one after another off the decoder's own head; no weights."""

    is_suffix_parallel = False

    def __init__(self, vocabulary: ActionVocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary

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
