"""Keys and values of the tokens read so far, kept so that each further token costs one token.

Shapes: B batch, H key-value heads, T tokens, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class KVShape(NamedTuple):
    """What one layer keeps of a token."""

    num_heads: int
    head_dim: int


class KVCache:
    """Preallocated keys and values of every layer, filled front to back.

    Each layer appends the tokens of the running step at `length`; `advance` then moves `length` once,
    after the last layer. Layers may differ in shape; a layer without keys of its own (None) has no room.
    """

    def __init__(
        self,
        shapes: Sequence[KVShape | None],
        *,
        batch_size: int,
        max_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.max_tokens, self.length = max_tokens, 0
        self._layers = [
            None
            if shape is None
            else torch.empty(
                (2, batch_size, shape.num_heads, max_tokens, shape.head_dim),
                dtype=dtype,
                device=device,
            )
            for shape in shapes
        ]

    def append(
        self,
        layer: int,
        k_BHTD: Float[Tensor, "batch heads tokens head_dim"],
        v_BHTD: Float[Tensor, "batch heads tokens head_dim"],
    ) -> tuple[Tensor, Tensor]:
        """Stores the new tokens of one layer; returns its keys and values from the first token on (views)."""
        end = self.length + k_BHTD.shape[2]
        if end > self.max_tokens:
            raise IndexError(
                f"the cache holds {self.max_tokens} tokens; {end} were to be stored; make it longer"
            )
        kept = self._layers[layer]
        if kept is None:
            raise IndexError(f"layer {layer} has no keys of its own to store")
        kept[0, :, :, self.length : end] = k_BHTD
        kept[1, :, :, self.length : end] = v_BHTD
        return kept[0, :, :, :end], kept[1, :, :, :end]

    def advance(self, num_tokens: int) -> None:
        """Counts the tokens of the finished step."""
        self.length += num_tokens

    def peek(self) -> KVCache:
        """Returns a cache of the same keys and values that is read but never filled: appended ones are seen once.

        For a suffix that is read again and again after the same prefix. Gradients flow through what is appended, if
        the kept keys and values were not made in inference mode.
        """
        return _Peek(self)


class _Peek(KVCache):
    def __init__(self, kept: KVCache) -> None:
        self.max_tokens, self.length, self._layers = kept.max_tokens, kept.length, kept._layers

    def append(self, layer: int, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        kept = self._layers[layer]
        if kept is None:
            raise IndexError(f"layer {layer} has no keys of its own to store")
        k, v = kept[:, :, :, : self.length]
        return torch.cat([k, k_BHTD], dim=2), torch.cat([v, v_BHTD], dim=2)

    def advance(self, num_tokens: int) -> None:
        del num_tokens
