"""Fewer tokens out of many: one vector a picture by attention (SigLIP), or averages over squares (Gemma 3 and 4)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.nn.attention import Attention, AttentionConfig
from vla.nn.mlp import Activation, PlainMLP


class AttentionPool(nn.Module):
    """A learned probe that attends to all patches, then a feed-forward: "MAP" (Zhai et al. 2022, appendix C)."""

    def __init__(
        self, width: int, num_heads: int, mlp_width: int, activation: Activation, norm_eps: float
    ) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(width))
        self.attention = Attention(
            AttentionConfig(
                width=width,
                num_heads=num_heads,
                num_kv_heads=num_heads,
                head_dim=width // num_heads,
                qkv_bias=True,
                out_bias=True,
            )
        )
        self.mlp_norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = PlainMLP(width, mlp_width, activation)

    def forward(
        self,
        patches: Float[Tensor, "batch patches width"],
        valid: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch width"]:
        """Returns one vector a picture; patches where `valid` is False are not read."""
        qkv = self.attention.qkv
        width = self.probe.shape[0]
        rows = [width, 2 * width]
        q_weight, kv_weight = qkv.weight.split(rows)
        q_bias, kv_bias = qkv.bias.split(rows)
        head_dim = self.attention.config.head_dim
        probe = self.probe.to(patches.dtype).expand(patches.shape[0], 1, -1)
        q = F.linear(probe, q_weight, q_bias).unflatten(-1, (-1, head_dim))
        kv = F.linear(patches, kv_weight, kv_bias).unflatten(-1, (2, -1, head_dim))
        k, v = kv.unbind(dim=2)
        may_attend = None if valid is None else valid[:, None, None]
        pooled = self.attention.read(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), may_attend
        )
        return (pooled + self.mlp(self.mlp_norm(pooled)))[:, 0]


class AveragePool(nn.Module):
    """Means over squares of patches, times the square root of the width; then (x - shift) * gain if standardised.

    Shift and gain come from a checkpoint.
    """

    shift: Tensor | None
    gain: Tensor | None

    def __init__(self, width: int, side: int, *, is_standardised: bool = False) -> None:
        super().__init__()
        self.side, self.scale = side, math.sqrt(width)
        self.register_buffer("shift", torch.zeros(width) if is_standardised else None)
        self.register_buffer("gain", torch.ones(width) if is_standardised else None)

    def forward(
        self,
        patches: Float[Tensor, "batch patches width"],
        positions: Int[Tensor, "batch patches 2"],
        valid: Bool[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Bool[Tensor, "batch tokens"]]:
        """Returns one token for each square of `side` x `side` patches, row after row, and which tokens there are.

        A picture's rows and columns must be multiples of `side`; a shorter picture's tokens come first.

        Args:
            patches: features, in any order.
            positions: (row, column) of every patch.
            valid: False for padding.

        Raises:
            ConfigError: the number of patches is no multiple of a square.
        """
        num_tokens, rest = divmod(patches.shape[1], self.side**2)
        if rest:
            raise ConfigError(
                f"{patches.shape[1]} patches a picture, padding included, cannot be pooled in squares of "
                f"{self.side} x {self.side}; pad to a multiple of {self.side**2}"
            )
        x, counted = patches.float(), torch.ones_like(positions[..., 0], dtype=torch.bool)
        if valid is not None:
            x, counted = x.masked_fill(~valid[..., None], 0.0), valid
            positions = positions.masked_fill(~valid[..., None], 0)
        columns = (positions[..., 1].amax(dim=1, keepdim=True) + 1) // self.side
        rows_and_columns = positions // self.side
        token = rows_and_columns[..., 0] * columns + rows_and_columns[..., 1]
        pooled = x.new_zeros(x.shape[0], num_tokens, x.shape[2])
        pooled.scatter_add_(1, token[..., None].expand(x.shape), x)
        there = torch.zeros(pooled.shape[:2], dtype=torch.int64, device=x.device)
        there.scatter_add_(1, token, counted.long())
        pooled = (pooled / self.side**2).to(patches.dtype) * self.scale
        if self.shift is not None and self.gain is not None:
            pooled = (pooled - self.shift) * self.gain
        return pooled, there > 0
