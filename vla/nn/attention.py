"""Multi-head attention with grouped queries, one fused projection for q, k and v, and an optional cache.

Shapes: B batch, T tokens, H heads, D head width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vla.nn.kv_cache import KVCache
from vla.nn.rope import Rotation, apply_rope


class Attention(nn.Module):
    """softmax(q k^T / sqrt(head_dim)) v; `num_kv_heads` < `num_heads` groups the queries (Ainslie et al. 2023).

    The rows of `qkv` are all query heads, then all key heads, then all value heads.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.head_dim = head_dim or width // num_heads
        rows = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        self.qkv = nn.Linear(width, rows, bias=bias)
        self.out = nn.Linear(self.num_heads * self.head_dim, width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        may_attend: Bool[Tensor, "batch 1 tokens keys"] | None = None,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the attended values.

        Args:
            x: tokens.
            may_attend: True where a query may read a key; None lets everything read everything.
            rotation: rotary embedding of the tokens of `x`.
            cache: where earlier keys and values are found and the new ones stored, under `layer`.
            layer: index of this layer in the cache.
        """
        B, T, _ = x.shape
        num_rotated = self.num_heads + self.num_kv_heads
        qkv_BTHD = self.qkv(x).view(B, T, num_rotated + self.num_kv_heads, self.head_dim)
        qk_BTHD, v_BTHD = qkv_BTHD.split([num_rotated, self.num_kv_heads], dim=2)
        if rotation is not None:
            qk_BTHD = apply_rope(qk_BTHD, rotation)
        q_BTHD, k_BTHD = qk_BTHD.split([self.num_heads, self.num_kv_heads], dim=2)
        q, k, v = q_BTHD.transpose(1, 2), k_BTHD.transpose(1, 2), v_BTHD.transpose(1, 2)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        y_BHTD = attend(q, k, v, may_attend)
        return self.out(y_BHTD.transpose(1, 2).reshape(B, T, -1))


def attend(
    q_BHTD: Float[Tensor, "batch heads tokens head_dim"],
    k_BHTD: Float[Tensor, "batch kv_heads keys head_dim"],
    v_BHTD: Float[Tensor, "batch kv_heads keys head_dim"],
    may_attend: Bool[Tensor, "batch 1 tokens keys"] | None,
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Returns softmax(q k^T / sqrt(head_dim)) v, by the faster of two ways.

    torch's fused kernel, except for training on a CPU, where its backward pass is up to seven times slower
    than three plain operations on sequences of some fifty tokens (bf16, measured on torch 2.11).
    """
    is_grouped = k_BHTD.shape[1] != q_BHTD.shape[1]
    if q_BHTD.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(
            q_BHTD, k_BHTD, v_BHTD, attn_mask=may_attend, enable_gqa=is_grouped
        )
    if is_grouped:
        group = q_BHTD.shape[1] // k_BHTD.shape[1]
        k_BHTD, v_BHTD = (x.repeat_interleave(group, dim=1) for x in (k_BHTD, v_BHTD))
    scores = (q_BHTD * q_BHTD.shape[-1] ** -0.5) @ k_BHTD.transpose(-1, -2)
    if may_attend is not None:  # added, not filled in: adding a constant needs no backward pass
        scores += torch.where(may_attend, 0.0, -math.inf).to(scores.dtype)
    return scores.softmax(dim=-1) @ v_BHTD
