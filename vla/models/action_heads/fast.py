"""Actions as FAST's tokens (`vla.tokenizers.fast`): as many as a chunk needs, then the end token."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor, nn


class FastActionHead(nn.Module):
    """Which ids of the vocabulary are FAST's; they are read off the decoder's own head, so there are no weights.

    Attributes:
        first_id: id of FAST's token 0.
        num_tokens: ids there is room for; the tokenizer may have fewer.
    """

    is_suffix_parallel = False

    def __init__(self, first_id: int, num_tokens: int) -> None:
        super().__init__()
        self.first_id, self.num_tokens = first_id, num_tokens

    def token_ids(self, fast_tokens: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
        """Returns the ids of FAST's tokens; of filling, -1, that of token 0: nothing before the end reads it."""
        return self.first_id + fast_tokens.clamp(min=0)

    def fast_tokens(self, token_ids: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
        """Returns FAST's tokens of ids; of other ids, the end token among them, -1."""
        is_fast = (token_ids >= self.first_id) & (token_ids < self.first_id + self.num_tokens)
        return (token_ids - self.first_id).masked_fill(~is_fast, -1)
