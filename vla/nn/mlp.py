"""The two feed-forward blocks of this field: plain (ViT) and gated (Llama and its descendants)."""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Activation(Enum):
    """Pointwise non-linearity of a feed-forward block."""

    GELU = "gelu"  # exact, with erf: DINOv2
    GELU_TANH = "gelu_tanh"  # SigLIP, Gemma
    QUICK_GELU = "quick_gelu"  # x * sigmoid(1.702 x): CLIP, Qwen2-VL's tower
    SILU = "silu"  # Llama, Qwen2


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Returns the non-linearity applied to every number of `x`."""
    if activation is Activation.SILU:
        return F.silu(x)
    if activation is Activation.QUICK_GELU:
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if activation is Activation.GELU_TANH else "none")


class PlainMLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(
        self, width: int, hidden_width: int, activation: Activation, bias: bool = True
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden_width, bias=bias)
        self.down = nn.Linear(hidden_width, width, bias=bias)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return self.down(activate(self.up(x), self.activation))


class GatedMLP(nn.Module):
    """down(activation(gate x) * up x), with gate and up as one matrix product (Shazeer 2020)."""

    def __init__(
        self, width: int, hidden_width: int, activation: Activation, bias: bool = False
    ) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden_width, bias=bias)
        self.down = nn.Linear(hidden_width, width, bias=bias)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(activate(gate, self.activation) * up)
