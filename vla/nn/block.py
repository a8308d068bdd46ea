"""The transformer block of every tower and every decoder: attention and a feed-forward, each added to the stream.

    x = x + scale * post_norm(attention(norm(x)))
    x = x + scale * post_norm(mlp(norm(x)))

Post norms (Gemma 2 and later) and scales (LayerScale: DINOv2) are there where the config says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vla.nn.attention import Attention, AttentionConfig, KeysValues
from vla.nn.mlp import Activation, GatedMLP, PlainMLP
from vla.nn.norms import Norm, make_norm
from vla.nn.rope import Rotation

# Given the new keys and values of a layer (None where it has none), returns those its queries are to read.
Remember = Callable[[Tensor | None, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Everything that differs between the blocks of this field."""

    width: int
    num_heads: int
    num_kv_heads: int | None = None  # None: as many as num_heads; fewer: grouped queries
    head_dim: int | None = None  # None: width / num_heads
    mlp_width: int
    activation: Activation
    is_gated: bool = False
    norm: Norm = Norm.LAYER
    norm_eps: float = 1e-6
    has_post_norms: bool = False
    has_qk_norm: bool = False
    has_v_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    attention_scale: float | None = None  # None: 1 / sqrt(head_dim)
    attention_softcap: float | None = None
    layer_scale: float | None = None  # initial gain of each branch; None leaves the gains out
    keys_values: KeysValues = KeysValues.OWN

    def attention(self) -> AttentionConfig:
        """Returns the attention's part of this config."""
        return AttentionConfig(
            width=self.width,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads or self.num_heads,
            head_dim=self.head_dim or self.width // self.num_heads,
            qkv_bias=self.qkv_bias,
            out_bias=self.out_bias,
            has_qk_norm=self.has_qk_norm,
            has_v_norm=self.has_v_norm,
            norm=self.norm,
            norm_eps=self.norm_eps,
            scale=self.attention_scale,
            softcap=self.attention_softcap,
            keys_values=self.keys_values,
        )


class Block(nn.Module):
    """One block; see the head of this file."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.config = config
        width, eps = config.width, config.norm_eps
        self.attention_norm = make_norm(config.norm, width, eps)
        self.attention = Attention(config.attention())
        self.mlp_norm = make_norm(config.norm, width, eps)
        mlp = GatedMLP if config.is_gated else PlainMLP
        self.mlp = mlp(width, config.mlp_width, config.activation, config.mlp_bias)
        self.attention_post_norm = self.mlp_post_norm = None
        if config.has_post_norms:
            self.attention_post_norm = make_norm(config.norm, width, eps)
            self.mlp_post_norm = make_norm(config.norm, width, eps)
        self.attention_scale = self.mlp_scale = None
        if config.layer_scale is not None:
            self.attention_scale = nn.Parameter(torch.full((width,), config.layer_scale))
            self.mlp_scale = nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        may_attend: Bool[Tensor, "batch 1 tokens keys"] | None = None,
        rotation: Rotation | None = None,
        remember: Remember | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the stream after this block.

        Args:
            x: the stream.
            may_attend: True where a query may read a key; None lets everything read everything.
            rotation: rotary embedding of the tokens of `x`.
            remember: stores the new keys and values and returns all that are to be read; None reads the new ones.
        """
        q, k, v = self.attention.project(self.attention_norm(x), rotation)
        if remember is not None:
            k, v = remember(k, v)
        if k is None or v is None:
            raise TypeError(
                "a block without keys of its own needs `remember` to find another layer's"
            )
        branch = self.attention.read(q, k, v, may_attend)
        x = x + _finished(branch, self.attention_post_norm, self.attention_scale)
        return x + _finished(self.mlp(self.mlp_norm(x)), self.mlp_post_norm, self.mlp_scale)


def _finished(branch: Tensor, post_norm: nn.Module | None, scale: Tensor | None) -> Tensor:
    if post_norm is not None:
        branch = post_norm(branch)
    return branch if scale is None else branch * scale.to(branch.dtype)
