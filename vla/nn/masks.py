"""Who may attend to whom. One rule covers causal, prefix-LM and chunk-parallel attention.

Every token belongs to a block, an integer that does not fall along the sequence. A query may attend to
a key when the key is valid (no padding) and its block is not later than the query's own:

    causal                   blocks 0 1 2 3 4     each token is its own block
    prefix-LM                blocks 0 0 0 1 2     the prefix is one block, the suffix is causal
    prefix-LM, parallel      blocks 0 0 0 1 1     the suffix sees the prefix and all of itself

In every mask True means: may attend.
"""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Bool
from torch import Tensor


class PrefixAttention(Enum):
    """How the prefix (images, words, proprioception) attends to itself."""

    CAUSAL = "causal"  # each token to the ones before it: OpenVLA
    PREFIX_LM = "prefix_lm"  # all of the prefix to all of it: PaliGemma


def attention_mask(
    valid_mask: Bool[Tensor, "batch tokens"],
    num_prefix: int,
    *,
    attention: PrefixAttention,
    is_suffix_parallel: bool,
) -> Bool[Tensor, "batch 1 tokens tokens"]:
    """Returns the mask of [prefix | suffix]: query on axis 2, key on axis 3; axis 1 broadcasts over heads.

    A padding query may attend to valid keys too, so that its softmax has something to sum over; what it
    computes is read by nobody. The first token of every row must be valid.

    Args:
        valid_mask: False for padding.
        num_prefix: tokens of the prefix, padding included; the rest is the suffix.
        attention: how the prefix attends to itself.
        is_suffix_parallel: True when all suffix tokens see each other (one block); False when they are
            read one after another.
    """
    num_tokens = valid_mask.shape[1]
    blocks = torch.arange(num_tokens, device=valid_mask.device)
    if attention is PrefixAttention.PREFIX_LM:
        blocks = blocks.clamp(min=num_prefix - 1)
    if is_suffix_parallel:
        blocks = blocks.clamp(max=num_prefix)
    is_not_later = blocks[None, :] <= blocks[:, None]
    return (is_not_later & valid_mask[:, None, :])[:, None]
