"""Root-mean-square normalisation. Layer normalisation is `torch.nn.LayerNorm`, used as it is."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019).

    The result keeps the dtype of the input, so a bf16 residual stream stays bf16.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        weight = self.weight.to(x.dtype)
        if x.device.type == "cpu" and torch.is_grad_enabled():
            return _RMSNormForCPUTraining.apply(x, weight, self.eps)
        return F.rms_norm(x, weight.shape, weight, self.eps)


class _RMSNormForCPUTraining(torch.autograd.Function):
    """The same function with its backward pass written out.

    torch has no fused backward for it on a CPU, and the traced one takes over twice the time (torch 2.11).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        statistics_dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=statistics_dtype)
        mean_square = norm**2 / x.shape[-1]
        inverse = (mean_square + eps).rsqrt().to(x.dtype)
        normalised = x * inverse
        ctx.save_for_backward(normalised, weight, inverse)
        return normalised * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        normalised, weight, inverse = ctx.saved_tensors
        product = grad * normalised
        along = (product @ weight)[..., None] / weight.shape[0]
        grad_x = (grad * weight).addcmul_(normalised, along, value=-1).mul_(inverse)
        return grad_x, product.flatten(0, -2).sum(dim=0), None
