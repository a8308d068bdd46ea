"""One decoder-only transformer; as configured here, Llama (Touvron et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.nn.attention import Attention
from vla.nn.kv_cache import KVCache
from vla.nn.mlp import Activation, GatedMLP
from vla.nn.norms import RMSNorm
from vla.nn.rope import Rotation, rope_rotation


@dataclass(kw_only=True)
class DecoderConfig:
    """Shape of a decoder."""

    vocab_size: int = 32000  # rows of the token embedding
    width: int = 4096
    depth: int = 32
    num_heads: int = 32
    num_kv_heads: int = 32  # fewer than num_heads: grouped queries
    head_dim: int = 128
    mlp_width: int = 11008
    activation: Activation = Activation.SILU
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads evenly; "
                "num_kv_heads must divide num_heads"
            )


class Decoder(nn.Module):
    """Token embedding, blocks and final norm. The output head belongs to the model that uses it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        self.final_norm = RMSNorm(config.width, config.norm_eps)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        may_attend: Bool[Tensor, "batch 1 tokens keys"],
        positions: Int[Tensor, "batch tokens"],
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the final hidden state of every token of `x`; with a cache, `x` holds only the new tokens."""
        rotation = rope_rotation(positions, self.config.head_dim, self.config.rope_theta)
        for index, layer in enumerate(self.layers):
            x = layer(x, may_attend, rotation, cache, index)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.final_norm(x)


class _Layer(nn.Module):
    """Pre-norm attention and gated feed-forward."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(
            config.width,
            config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = GatedMLP(config.width, config.mlp_width, config.activation)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        may_attend: Bool[Tensor, "batch 1 tokens keys"],
        rotation: Rotation,
        cache: KVCache | None,
        index: int,
    ) -> Float[Tensor, "batch tokens width"]:
        x = x + self.attention(
            self.attention_norm(x),
            may_attend=may_attend,
            rotation=rotation,
            cache=cache,
            layer=index,
        )
        return x + self.mlp(self.mlp_norm(x))
