"""Root-mean-square normalisation. Layer normalisation is `torch.nn.LayerNorm`, used as it is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019).

    The statistics are taken in the dtype the kernel chooses (fp32 inside for bf16 input); the result
    keeps the dtype of the input, so a bf16 residual stream stays bf16.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)
