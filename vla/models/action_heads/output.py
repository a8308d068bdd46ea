"""What comes out of an action head, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(kw_only=True)
class ActionOutput:
    """What one forward pass says; which fields are filled depends on the head.

    Attributes:
        action_logits: (batch, steps, dims, 256) over the bins of every action number; None where there are no bins.
        token_logits: (batch, tokens + 1, vocabulary) over all tokens, after the last one the end token; one token after
            another only. There are steps * dims bins, or as many tokens as the longest of FAST's rows has.
        token_ids: (batch, tokens) the true tokens that were fed; one token after another only.
        actions: (batch, steps, dims) normalised to [-1, 1]; `L1ActionHead` only.
        velocity: (batch, steps, dims) from noise towards the normalised chunk; `FlowActionHead` only.
        pointing_logits: (batch, views, image tokens) where the named object is; `grounding` only.
        target_from_tool_dm: (batch, 3) decimetres to the named object; `grounding` only.
    """

    action_logits: Tensor | None = None
    token_logits: Tensor | None = None
    token_ids: Tensor | None = None
    actions: Tensor | None = None
    velocity: Tensor | None = None
    pointing_logits: Tensor | None = None
    target_from_tool_dm: Tensor | None = None
