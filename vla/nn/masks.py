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
from jaxtyping import Bool, Int
from torch import Tensor


class PrefixAttention(Enum):
    """How the prefix (images, words, proprioception) attends to itself."""

    CAUSAL = "causal"  # each token to the ones before it: OpenVLA
    PREFIX_LM = "prefix_lm"  # all of the prefix to all of it: PaliGemma


def sequence_blocks(
    num_prefix: int,
    num_suffix: int,
    *,
    attention: PrefixAttention,
    is_suffix_parallel: bool,
    device: torch.device | None = None,
) -> Int[Tensor, "tokens"]:
    """Returns the block of every token of [prefix | suffix].

    Args:
        num_prefix: tokens of the prefix, padding included.
        num_suffix: tokens of the suffix.
        attention: how the prefix attends to itself.
        is_suffix_parallel: True when all suffix tokens see each other (one block); False when they are
            read one after another.
        device: where the result lives.
    """
    is_causal = attention is PrefixAttention.CAUSAL
    order = torch.arange(num_prefix + num_suffix, device=device)
    prefix = order[:num_prefix] if is_causal else torch.zeros_like(order[:num_prefix])
    suffix = order[num_prefix:]
    if is_suffix_parallel:
        suffix = torch.full_like(suffix, num_prefix)
    return torch.cat([prefix, suffix])


def attention_mask(
    valid_mask: Bool[Tensor, "batch tokens"], blocks: Int[Tensor, "tokens"]
) -> Bool[Tensor, "batch 1 tokens tokens"]:
    """Returns the mask (query on axis 2, key on axis 3) of the rule above; axis 1 broadcasts over heads.

    A padding query may attend to the valid keys before it, so that its softmax has something to sum over
    as long as the first token of the row is valid; what it computes is read by nobody.
    """
    not_later = blocks[None, :] <= blocks[:, None]
    return (not_later[None] & valid_mask[:, None, :])[:, None]
