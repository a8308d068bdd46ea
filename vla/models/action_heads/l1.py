"""Actions as numbers, all of a chunk out of one forward pass.

Source: Kim, Finn, Liang 2025 (OpenVLA-OFT), arXiv 2502.19645, section IV. One slot stands for a whole step here; there
every number has a placeholder of its own, and the head reads a step's placeholders together.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.models.action_heads.output import ActionOutput


class L1ActionHead(nn.Module):
    """Learned slots, one a step, and a small network that reads a step's numbers off each.

    Trained with the absolute error it answers with the median of what the demonstrations do. Where they go left or
    right of an obstacle, that is a number in between: see `FlowActionHead`.
    """

    is_suffix_parallel = True

    def __init__(self, width: int, chunk_length: int, action_width: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.zeros(chunk_length, width))
        self.regression = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, action_width)
        )

    def suffix(self, batch_size: int) -> Float[Tensor, "batch steps width"]:
        """Returns the slots, what the decoder reads after the prefix."""
        return self.slots.expand(batch_size, -1, -1)

    def read(self, hidden: Float[Tensor, "batch steps width"]) -> ActionOutput:
        """Returns what the hidden states of the suffix say: `actions`, normalised to [-1, 1] but not limited to it."""
        return ActionOutput(actions=self.regression(hidden))
