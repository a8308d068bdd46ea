"""Patches that enter the language model without an encoder: norm, linear, norm, a learned place, norm.

Source: transformers 5.23.0, models/gemma4_unified, Gemma4UnifiedVisionEmbedder.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class RawPatchEmbedding(nn.Module):
    """One token a patch, knowing of no other patch."""

    def __init__(self, patch_size: int, width: int, num_axis_positions: int) -> None:
        super().__init__()
        num_values = 3 * patch_size**2
        self.pixel_norm = nn.LayerNorm(num_values)
        self.projection = nn.Linear(num_values, width)
        self.patch_norm = nn.LayerNorm(width)
        self.axis_tables = nn.Parameter(torch.zeros(num_axis_positions, 2, width))
        self.place_norm = nn.LayerNorm(width)

    def forward(
        self, patches: Float[Tensor, "*batch values"], positions: Int[Tensor, "*batch 2"]
    ) -> Float[Tensor, "*batch width"]:
        """Returns tokens of patches in [0, 1].

        Args:
            patches: values of every patch, numbered (rows, columns, channels).
            positions: (column, row) of every patch in its picture.
        """
        x = self.patch_norm(self.projection(self.pixel_norm(patches)))
        columns, rows = self.axis_tables.to(x.dtype).unbind(dim=1)
        places = F.embedding(positions[..., 0], columns) + F.embedding(positions[..., 1], rows)
        return self.place_norm(x + places)
