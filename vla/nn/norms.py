"""The normalisations of this field: layer norm (torch's own) and root mean square in its three spellings."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F


class Norm(Enum):
    """Which normalisation a model uses."""

    LAYER = "layer"  # mean and variance, weight and bias: the vision towers
    RMS = "rms"  # Llama, Qwen2, Gemma 4
    RMS_OFFSET = "rms_offset"  # the weight is stored less one: Gemma 1 to 3


def make_norm(kind: Norm, width: int, eps: float) -> nn.Module:
    """Returns a normalisation over the last axis of `width` channels."""
    if kind is Norm.LAYER:
        return nn.LayerNorm(width, eps=eps)
    return RMSNorm(width, eps, offset=kind is Norm.RMS_OFFSET)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019).

    The result keeps the dtype of the input, so a bf16 residual stream stays bf16.

    With `offset` the factor is 1 + weight and is applied in fp32 before rounding, as Gemma does; rounding 1 + weight
    to bf16 first would lose small weights. Without `has_weight` nothing is learnt.
    """

    def __init__(
        self, width: int, eps: float = 1e-6, *, offset: bool = False, has_weight: bool = True
    ) -> None:
        super().__init__()
        start = torch.zeros(width) if offset else torch.ones(width)
        self.weight = nn.Parameter(start) if has_weight else None
        self.width, self.eps, self.offset = width, eps, offset

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        if self.weight is None:
            return F.rms_norm(x, (self.width,), None, self.eps)
        if self.offset:
            factor = 1.0 + self.weight.float()
            return F.rms_norm(x.float(), (self.width,), factor, self.eps).to(x.dtype)
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
