"""Everything that is chosen about a decoder. The defaults are Llama 2 7B; presets are in `decoder_presets`.

Some decoders have two kinds of layers: full ones attend to everything, windowed ones to the last `window` tokens. Where
full layers differ in more than that (Gemma 3 and 4), the fields `full_*` say how.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vla.errors import ConfigError
from vla.nn.attention import KeysValues
from vla.nn.block import BlockConfig
from vla.nn.kv_cache import KVShape
from vla.nn.mlp import Activation
from vla.nn.norms import Norm
from vla.nn.rope import RopeConfig


class Head(Enum):
    """What turns hidden states into logits over the vocabulary."""

    NONE = "none"  # nothing: the model that holds the decoder reads hidden states itself
    TIED = "tied"  # the token embedding: Gemma, Qwen2-VL-2B
    OWN = "own"  # a matrix of its own: Llama, Qwen2-VL-7B


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
    head: Head = Head.NONE
    norm: Norm = Norm.RMS
    has_post_norms: bool = False  # norms after attention and feed-forward too: Gemma 2 and later
    has_qk_norm: bool = False  # Gemma 3, Gemma 4
    has_v_norm: bool = False  # Gemma 4
    qkv_bias: bool = False  # Qwen2
    attention_scale: float | None = None  # None: 1 / sqrt(head_dim)
    attention_softcap: float | None = None  # Gemma 2
    final_softcap: float | None = None  # of the logits: Gemma 2, Gemma 4
    scales_embedding: bool = False  # by sqrt(width), rounded to the weights' dtype: Gemma
    rope_sections: list[int] | None = None  # pairs for time, row, column: M-RoPE
    rope_is_apart: bool = False  # the sections turn within their own channels
    window: int | None = (
        None  # tokens a windowed layer sees, itself included; None: all layers are full
    )
    full_layers: list[int] = field(default_factory=list)  # layers without window
    full_rope_theta: float | None = None  # None: rope_theta
    full_rope_share: float = 1.0  # share of the pairs that turn: Gemma 4
    full_rope_factor: float = 1.0  # positions are divided by it: Gemma 3 above 1B
    full_head_dim: int | None = None  # None: head_dim
    full_num_kv_heads: int | None = None  # None: num_kv_heads
    full_values_are_keys: bool = False  # one projection for both: Gemma 4 31B and 12B
    num_shared_layers: int = 0  # last layers without keys of their own: Gemma 4 E2B, E4B
    shared_mlp_factor: int = 1  # feed-forward width of those layers, as a multiple
    per_layer_width: int = 0  # width of the per-layer embeddings, 0: none: Gemma 4 E2B, E4B
    per_layer_vocab_size: int = 0
    has_layer_scalars: bool = (
        False  # the stream is multiplied by a number after each layer: Gemma 4
    )
    max_tokens: int = 4096  # context it was trained for

    def __post_init__(self) -> None:
        for kind, count in (
            ("num_kv_heads", self.num_kv_heads),
            ("full_num_kv_heads", self.full_num_kv_heads),
        ):
            if count is not None and self.num_heads % count:
                raise ConfigError(
                    f"{self.num_heads} query heads cannot share {count} key-value heads evenly; "
                    f"{kind} must divide num_heads"
                )
        outside = [layer for layer in self.full_layers if not 0 <= layer < self.depth]
        if outside:
            raise ConfigError(f"full_layers names layer {outside[0]}; there are {self.depth}")
        for layer in range(self.depth):
            self.key_source(layer)

    def is_full(self, layer: int) -> bool:
        """Whether a layer attends to everything."""
        return self.window is None or layer in self.full_layers

    def is_shared(self, layer: int) -> bool:
        """Whether a layer reads the keys and values of an earlier one."""
        return layer >= self.depth - self.num_shared_layers

    def key_source(self, layer: int) -> int:
        """Returns the layer whose keys and values a layer reads: itself, or the last one of its kind that has its own.

        Raises:
            ConfigError: it shares, and no layer of its kind comes before.
        """
        if not self.is_shared(layer):
            return layer
        for source in reversed(range(self.depth - self.num_shared_layers)):
            if self.is_full(source) == self.is_full(layer):
                return source
        raise ConfigError(
            f"layer {layer} is to share keys, but no layer of its kind has its own; lower num_shared_layers"
        )

    def kv_shape(self, layer: int) -> KVShape | None:
        """Returns what a layer keeps of every token; None if it shares."""
        if self.is_shared(layer):
            return None
        block = self.block(layer).attention()
        return KVShape(block.num_kv_heads, block.head_dim)

    def rope(self, layer: int) -> RopeConfig:
        """Returns how a layer turns queries and keys."""
        sections = None if self.rope_sections is None else tuple(self.rope_sections)
        if not self.is_full(layer) or self.window is None:
            return RopeConfig(theta=self.rope_theta, sections=sections, is_apart=self.rope_is_apart)
        return RopeConfig(
            theta=self.full_rope_theta or self.rope_theta,
            sections=sections,
            is_apart=self.rope_is_apart,
            share=self.full_rope_share,
            factor=self.full_rope_factor,
        )

    def block(self, layer: int) -> BlockConfig:
        """Returns the shape of one layer."""
        is_special = self.window is not None and self.is_full(layer)
        keys_values = KeysValues.OWN
        if is_special and self.full_values_are_keys:
            keys_values = KeysValues.TIED
        if self.is_shared(layer):
            keys_values = KeysValues.SHARED
        return BlockConfig(
            width=self.width,
            num_heads=self.num_heads,
            num_kv_heads=(is_special and self.full_num_kv_heads) or self.num_kv_heads,
            head_dim=(is_special and self.full_head_dim) or self.head_dim,
            mlp_width=self.mlp_width * (self.shared_mlp_factor if self.is_shared(layer) else 1),
            activation=self.activation,
            is_gated=True,
            norm=self.norm,
            norm_eps=self.norm_eps,
            has_post_norms=self.has_post_norms,
            has_qk_norm=self.has_qk_norm,
            has_v_norm=self.has_v_norm,
            qkv_bias=self.qkv_bias,
            attention_scale=self.attention_scale,
            attention_softcap=self.attention_softcap,
            keys_values=keys_values,
        )
