"""One decoder-only transformer for every family; what differs between them is in `DecoderConfig`."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.per_layer_embedding import PerLayerEmbedding
from vla.nn.block import Block
from vla.nn.kv_cache import KVCache
from vla.nn.norms import make_norm
from vla.nn.rope import rope_rotation


class Decoder(nn.Module):
    """Token embedding, blocks, final norm and, where the config has one, the head over the vocabulary."""

    layer_scalars: Tensor | None

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config.block(layer)) for layer in range(config.depth))
        self.final_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.lm_head = None
        if config.head is Head.OWN:
            self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.per_layer = PerLayerEmbedding(config) if config.per_layer_width else None
        scalars = torch.ones(config.depth) if config.has_layer_scalars else None
        self.register_buffer("layer_scalars", scalars)
        self._is_full = [config.is_full(layer) for layer in range(config.depth)]
        self._key_sources = [config.key_source(layer) for layer in range(config.depth)]
        self._ropes = {  # full layers and windowed ones may turn differently
            is_full: (config.block(layer).attention().head_dim, config.rope(layer))
            for layer, is_full in enumerate(self._is_full)
        }

    def embed(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Returns the embedded tokens, scaled where the family does so."""
        embedded = self.token_embedding(token_ids)
        if not self.config.scales_embedding:
            return embedded
        return embedded * torch.tensor(self.config.width**0.5, dtype=embedded.dtype)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        may_attend: Bool[Tensor, "batch 1 tokens keys"],
        positions: Int[Tensor, "batch tokens *axes"],
        may_attend_near: Bool[Tensor, "batch 1 tokens keys"] | None = None,
        cache: KVCache | None = None,
        token_ids: Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the final hidden state of every token of `x`; with a cache, `x` holds only the new tokens.

        Args:
            x: embedded tokens.
            may_attend: who may attend to whom in full layers.
            positions: one integer a token, or (time, row, column) with `rope_sections`.
            may_attend_near: the same for windowed layers; needed when the config has a window.
            cache: from `make_cache`.
            token_ids: needed by per-layer embeddings.

        Raises:
            ConfigError: the config needs `may_attend_near` or `token_ids`, and it was not given.
        """
        config = self.config
        inputs = self._per_layer_inputs(x, token_ids)
        if config.window is not None and may_attend_near is None:
            raise ConfigError(
                f"layers see {config.window} tokens; pass may_attend_near with that window"
            )
        rotations = {
            is_full: rope_rotation(positions, head_dim, rope)
            for is_full, (head_dim, rope) in self._ropes.items()
        }
        memory: dict[int, tuple[Tensor, Tensor]] = {}
        for index, layer in enumerate(self.layers):
            is_full = self._is_full[index]
            x = layer(
                x,
                may_attend=may_attend if is_full else may_attend_near,
                rotation=rotations[is_full],
                remember=partial(self._remember, memory, cache, index),
            )
            if self.per_layer is not None and inputs is not None:
                x = self.per_layer.add(index, x, inputs)
            if self.layer_scalars is not None:
                x = x * self.layer_scalars[index].to(x.dtype)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.final_norm(x)

    def logits(
        self, hidden: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Returns logits over the vocabulary; raises ConfigError for a decoder without a head."""
        match self.config.head:
            case Head.NONE:
                raise ConfigError("this decoder has no head; build it with head=TIED or head=OWN")
            case Head.TIED:
                logits = nn.functional.linear(hidden, self.token_embedding.weight)
            case Head.OWN:
                assert self.lm_head is not None
                logits = self.lm_head(hidden)
        cap = self.config.final_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def make_cache(
        self, batch_size: int, max_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> KVCache:
        """Returns an empty cache with room for `max_tokens` of every row."""
        shapes = [self.config.kv_shape(layer) for layer in range(self.config.depth)]
        return KVCache(
            shapes, batch_size=batch_size, max_tokens=max_tokens, dtype=dtype, device=device
        )

    def _per_layer_inputs(self, x: Tensor, token_ids: Tensor | None) -> Tensor | None:
        if self.per_layer is None:
            return None
        if token_ids is None:
            raise ConfigError("per-layer embeddings look tokens up by id; pass token_ids")
        return self.per_layer(x, token_ids)

    def _remember(
        self,
        memory: dict[int, tuple[Tensor, Tensor]],
        cache: KVCache | None,
        layer: int,
        k: Tensor | None,
        v: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Stores a layer's new keys and values; returns those its queries are to read."""
        if k is not None and v is not None:
            kept = (k, v) if cache is None else cache.append(layer, k, v)
            if self.config.num_shared_layers:
                memory[layer] = kept
            return kept
        return memory[self._key_sources[layer]]
