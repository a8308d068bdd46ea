"""Multi-head attention with grouped queries and one fused projection for queries, keys and values.

Shapes: B batch, T tokens, H heads, D head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vla.nn.norms import Norm, RMSNorm
from vla.nn.rope import Rotation, apply_rope


class KeysValues(Enum):
    """Where the keys and values of a layer come from."""

    OWN = "own"  # a projection each
    TIED = "tied"  # one projection is both: Gemma 4's full layers
    SHARED = "shared"  # those of an earlier layer: Gemma 4's last layers


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Shape and variants of an attention layer."""

    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    has_qk_norm: bool = False  # RMS norm of each query and key head before rotation
    has_v_norm: bool = False  # RMS norm without weights of each value head
    norm: Norm = Norm.RMS  # of queries and keys
    norm_eps: float = 1e-6
    scale: float | None = None  # of q k^T; None: 1 / sqrt(head_dim)
    softcap: float | None = None  # c tanh(scores / c) before the softmax: Gemma 2
    keys_values: KeysValues = KeysValues.OWN


class Attention(nn.Module):
    """softmax(q k^T / sqrt(head_dim)) v; `num_kv_heads` < `num_heads` groups the queries (Ainslie et al. 2023).

    The rows of `qkv` are all query heads, then all key heads, then all value heads, as far as the layer has them.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        num_projected = {KeysValues.OWN: 2, KeysValues.TIED: 1, KeysValues.SHARED: 0}
        self.sizes = [config.num_heads] + [config.num_kv_heads] * num_projected[config.keys_values]
        rows = sum(self.sizes) * config.head_dim
        self.qkv = nn.Linear(config.width, rows, bias=config.qkv_bias)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.width, bias=config.out_bias)
        self.q_norm = self.k_norm = None
        if config.has_qk_norm:
            self.q_norm = self._head_norm()
            if config.keys_values is not KeysValues.SHARED:
                self.k_norm = self._head_norm()

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        may_attend: Bool[Tensor, "batch 1 tokens keys"] | None = None,
        rotation: Rotation | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the attended values of a sequence that attends to itself.

        Args:
            x: tokens.
            may_attend: True where a query may read a key; None lets everything read everything.
            rotation: rotary embedding of the tokens of `x`.
        """
        q, k, v = self.project(x, rotation)
        if k is None or v is None:
            raise TypeError("a layer that shares keys cannot attend alone; pass them to `read`")
        return self.read(q, k, v, may_attend)

    def project(
        self, x: Float[Tensor, "batch tokens width"], rotation: Rotation | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns queries, keys and values of `x` (batch, heads, tokens, head_dim); no keys or values if SHARED."""
        config = self.config
        qkv_BTHD = self.qkv(x).unflatten(-1, (-1, config.head_dim))
        if (
            config.keys_values is KeysValues.OWN
            and not config.has_qk_norm
            and not config.has_v_norm
        ):
            return self._split_rotated(qkv_BTHD, rotation)
        q, *rest = qkv_BTHD.split(self.sizes, dim=2)
        q = self._turned(q, self.q_norm, rotation)
        if not rest:
            return q, None, None
        k, v = rest[0], rest[-1]
        if config.has_v_norm:
            v = F.rms_norm(v, (config.head_dim,), None, config.norm_eps)
        return q, self._turned(k, self.k_norm, rotation), v.transpose(1, 2)

    def read(
        self,
        q_BHTD: Float[Tensor, "batch heads tokens head_dim"],
        k_BHTD: Float[Tensor, "batch kv_heads keys head_dim"],
        v_BHTD: Float[Tensor, "batch kv_heads keys head_dim"],
        may_attend: Bool[Tensor, "batch 1 tokens keys"] | None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns what the queries find among the keys, projected back to the width."""
        config = self.config
        y_BHTD = attend(
            q_BHTD, k_BHTD, v_BHTD, may_attend, scale=config.scale, softcap=config.softcap
        )
        return self.out(y_BHTD.transpose(1, 2).flatten(2))

    def _split_rotated(
        self, qkv_BTHD: Tensor, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys turned in one go, where nothing has to be done to them apart."""
        num_rotated = self.config.num_heads + self.config.num_kv_heads
        qk, v = qkv_BTHD.split([num_rotated, self.config.num_kv_heads], dim=2)
        if rotation is not None:
            qk = apply_rope(qk, rotation)
        q, k = qk.split([self.config.num_heads, self.config.num_kv_heads], dim=2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def _turned(self, x_BTHD: Tensor, norm: RMSNorm | None, rotation: Rotation | None) -> Tensor:
        if norm is not None:
            x_BTHD = norm(x_BTHD)
        if rotation is not None:
            x_BTHD = apply_rope(x_BTHD, rotation)
        return x_BTHD.transpose(1, 2)

    def _head_norm(self) -> RMSNorm:
        config = self.config
        is_offset = config.norm is Norm.RMS_OFFSET
        return RMSNorm(config.head_dim, config.norm_eps, offset=is_offset)


def attend(
    q_BHTD: Float[Tensor, "batch heads tokens head_dim"],
    k_BHTD: Float[Tensor, "batch kv_heads keys head_dim"],
    v_BHTD: Float[Tensor, "batch kv_heads keys head_dim"],
    may_attend: Bool[Tensor, "batch 1 tokens keys"] | None,
    *,
    scale: float | None = None,
    softcap: float | None = None,
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Returns softmax(scale * q k^T) v, by the faster of two ways.

    torch's fused kernel, except for training on a CPU, where its backward pass is up to seven times slower
    than three plain operations on sequences of some fifty tokens (bf16, measured on torch 2.11), and for
    soft-capped scores, which it does not know.
    """
    is_grouped = k_BHTD.shape[1] != q_BHTD.shape[1]
    is_cpu_training = q_BHTD.device.type == "cpu" and torch.is_grad_enabled()
    if softcap is None and not is_cpu_training:
        return F.scaled_dot_product_attention(
            q_BHTD, k_BHTD, v_BHTD, attn_mask=may_attend, enable_gqa=is_grouped, scale=scale
        )
    if is_grouped:
        group = q_BHTD.shape[1] // k_BHTD.shape[1]
        k_BHTD, v_BHTD = (x.repeat_interleave(group, dim=1) for x in (k_BHTD, v_BHTD))
    factor = q_BHTD.shape[-1] ** -0.5 if scale is None else scale
    scores = (q_BHTD * factor) @ k_BHTD.transpose(-1, -2)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if may_attend is not None:  # added, not filled in: adding a constant needs no backward pass
        scores += torch.where(may_attend, 0.0, -math.inf).to(scores.dtype)
    return scores.softmax(dim=-1) @ v_BHTD
