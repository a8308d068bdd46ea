"""Who may attend to whom. One rule covers every mask of this field.

Every token belongs to a block, an integer that does not fall along the sequence. A query may attend to a key when the
key is valid (no padding), its block is not later than the query's own, it belongs to the same document, and it lies
within the window:

    causal                   blocks 0 1 2 3 4     each token is its own block
    prefix-LM                blocks 0 0 0 1 2     the prefix is one block, the suffix is causal
    prefix-LM, parallel      blocks 0 0 0 1 1     the suffix sees the prefix and all of itself
    causal, whole images     blocks 0 1 1 1 4     the tokens of an image see each other, all else is causal

In every mask True means: may attend. Axis 2 is the query, axis 3 the key; axis 1 broadcasts over heads.
"""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class PrefixAttention(Enum):
    """How the prefix (images, words, proprioception) attends to itself."""

    CAUSAL = "causal"  # each token to the ones before it: OpenVLA
    PREFIX_LM = "prefix_lm"  # all of the prefix to all of it: PaliGemma


def attention_mask(
    valid_mask: Bool[Tensor, "batch keys"],
    blocks: Int[Tensor, "batch keys"],
    *,
    window: int | None = None,
    keeps_blocks: bool = False,
    documents: Int[Tensor, "batch keys"] | None = None,
    num_queries: int | None = None,
) -> Bool[Tensor, "batch 1 queries keys"]:
    """Returns the mask of one sequence attending to itself.

    Every token may attend to itself, so that a padding query too has something to sum over; what padding computes is
    read by nobody.

    Args:
        valid_mask: False for padding, on either side or in between.
        blocks: block of every token.
        window: keys this many valid tokens or more before the query are out of reach, the query itself counted;
            None sets no limit.
        keeps_blocks: the window does not cut blocks: tokens of one block see each other however far apart.
        documents: number of the document each token belongs to, where several are packed into one row, each in one
            piece; tokens of -1 come first, see each other, and are seen by every document: a picture that many
            questions are about.
        num_queries: only the last so many tokens are queries (the others are in a cache); None takes all.
    """
    num_keys = valid_mask.shape[1]
    first = num_keys - (num_keys if num_queries is None else num_queries)
    may_attend = blocks[:, None, :] <= blocks[:, first:, None]
    may_attend = may_attend & valid_mask[:, None, :]
    if documents is not None:
        is_same = documents[:, None, :] == documents[:, first:, None]
        may_attend = may_attend & (is_same | (documents[:, None, :] < 0))
    if window is not None:
        order = valid_mask.cumsum(dim=1)
        if documents is not None:
            order = order - tokens_of_earlier_documents(valid_mask, documents)
        is_near = order[:, first:, None] - order[:, None, :] < window
        if keeps_blocks:
            is_near = is_near | (blocks[:, None, :] == blocks[:, first:, None])
        may_attend = may_attend & is_near
    order = torch.arange(num_keys, device=valid_mask.device)
    return (may_attend | (order[first:, None] == order))[:, None]


def tokens_of_earlier_documents(
    valid_mask: Bool[Tensor, "batch tokens"], documents: Int[Tensor, "batch tokens"]
) -> Int[Tensor, "batch tokens"]:
    """Returns how many valid tokens stand before a token that its document does not see; `documents` as above."""
    order = valid_mask.cumsum(dim=1)
    is_first = torch.ones_like(valid_mask)
    is_first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    before = torch.where(is_first, order - valid_mask.long(), 0).cummax(dim=1).values
    shared = (valid_mask & (documents < 0)).sum(dim=1, keepdim=True)
    return torch.where(documents < 0, 0, before - shared)


def causal_blocks(valid_mask: Bool[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """Returns 0, 1, 2, ...: each token sees itself and what came before."""
    return torch.arange(valid_mask.shape[1], device=valid_mask.device).expand(valid_mask.shape)


def prefix_lm_blocks(suffix_mask: Bool[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """Returns 0 over the prefix and 1, 2, 3, ... over the suffix, where `suffix_mask` is True."""
    return suffix_mask.cumsum(dim=1)


def island_blocks(island_mask: Bool[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """Returns causal blocks in which each run of True (the tokens of an image) is one block."""
    follows = torch.zeros_like(island_mask)
    follows[:, 1:] = island_mask[:, 1:] & island_mask[:, :-1]
    order = causal_blocks(island_mask)
    return torch.where(follows, 0, order).cummax(dim=1).values
