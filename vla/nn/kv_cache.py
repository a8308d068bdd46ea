"""Keys and values of the tokens read so far, kept so that each further token costs one token.

Shapes: L layers, B batch, H key-value heads, T tokens, D head width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class KVCache:
    """Preallocated keys and values of every layer, filled front to back.

    Each layer appends the tokens of the running step at `length`; `advance` then moves `length` once,
    after the last layer.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_kv_heads: int,
        max_tokens: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_layers, batch_size, num_kv_heads, max_tokens, head_dim)
        self.keys_LBHTD = torch.empty(shape, dtype=dtype, device=device)
        self.values_LBHTD = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def max_tokens(self) -> int:
        return self.keys_LBHTD.shape[3]

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
        self.keys_LBHTD[layer, :, :, self.length : end] = k_BHTD
        self.values_LBHTD[layer, :, :, self.length : end] = v_BHTD
        return self.keys_LBHTD[layer, :, :, :end], self.values_LBHTD[layer, :, :, :end]

    def advance(self, num_tokens: int) -> None:
        """Counts the tokens of the finished step."""
        self.length += num_tokens
