"""Linear layers that clip what goes in and what comes out, with bounds that come from a checkpoint: Gemma 4's tower."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vla.nn.block import Block
from vla.nn.mlp import GatedMLP


class ClippedLinear(nn.Linear):
    """clip(W clip(x)), where each of several stacked matrices has bounds of its own; without bias.

    The bounds are vectors with an entry a matrix, infinite until a checkpoint is loaded.
    """

    input_min: Tensor
    input_max: Tensor
    output_min: Tensor
    output_max: Tensor

    def __init__(self, in_features: int, row_counts: Sequence[int]) -> None:
        super().__init__(in_features, sum(row_counts), bias=False)
        self.row_counts = list(row_counts)
        for side in ("input", "output"):
            for name, bound in (("min", -math.inf), ("max", math.inf)):
                self.register_buffer(f"{side}_{name}", torch.full((len(row_counts),), bound))

    def forward(self, input: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch rows"]:
        outputs = []
        for i, rows in enumerate(self.weight.split(self.row_counts)):
            clipped = input.clamp(self.input_min[i], self.input_max[i])
            product = F.linear(clipped, rows)
            outputs.append(product.clamp(self.output_min[i], self.output_max[i]))
        return torch.cat(outputs, dim=-1)


def clip_linears(block: Block) -> None:
    """Exchanges the linear layers of a gated block without biases for clipped ones, before any weights are set."""
    attention, mlp = block.attention, block.mlp
    if not isinstance(mlp, GatedMLP) or attention.config.qkv_bias or attention.config.out_bias:
        raise TypeError("only the linear layers of a gated block without biases can be clipped")
    counts = [heads * attention.config.head_dim for heads in attention.sizes]
    attention.qkv = ClippedLinear(attention.qkv.in_features, counts)
    attention.out = ClippedLinear(attention.out.in_features, [attention.out.out_features])
    hidden_width = mlp.down.in_features
    mlp.gate_up = ClippedLinear(mlp.gate_up.in_features, [hidden_width, hidden_width])
    mlp.down = ClippedLinear(hidden_width, [mlp.down.out_features])
