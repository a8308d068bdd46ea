"""From pictures, words and proprioception to action bins: one forward pass, or prefill and then token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vla.inference.sampling import choose_bins
from vla.models.action_heads import TokenActionHead
from vla.models.backbones.prismatic import Prismatic
from vla.nn.kv_cache import KVCache
from vla.nn.positions import last_valid, positions_from_valid


@dataclass(kw_only=True)
class ActionEngine:
    """Decodes chunks with one model. Only action tokens can come out, whatever the logits of the others.

    Attributes:
        model: put into eval mode by `predict`; it runs where its weights are.
        temperature: 0 takes the likeliest bin.
        generator: source of randomness when temperature > 0.
    """

    model: Prismatic
    temperature: float = 0.0
    generator: torch.Generator | None = None

    @torch.inference_mode()
    def predict(
        self,
        images: UInt8[Tensor, "batch views 3 rows columns"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
    ) -> tuple[Int[Tensor, "batch steps dims"], Float[Tensor, "batch steps dims"]]:
        """Returns the chosen bins of a chunk, 0..255, and the probability of each among the 256."""
        self.model.eval()
        device = next(self.model.parameters()).device
        images, text_ids, text_valid = (x.to(device) for x in (images, text_ids, text_valid))
        state = None if state is None else state.to(device)
        if isinstance(self.model.action_head, TokenActionHead):
            return self._one_by_one(self.model.action_head, images, text_ids, text_valid, state)
        output = self.model(images, text_ids, text_valid, state)
        return self._choose(output.action_logits)

    def _one_by_one(
        self,
        head: TokenActionHead,
        images: Tensor,
        text_ids: Tensor,
        text_valid: Tensor,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        config = self.model.config
        num_tokens = config.chunk_length * config.action_width
        hidden, cache, valid = prefill(
            self.model, images, text_ids, text_valid, state, num_further_tokens=num_tokens - 1
        )
        bins, probabilities = [], []
        for index in range(num_tokens):
            ids = head.bin_ids(index % config.action_width, hidden.device)
            chosen, probability = self._choose(head(hidden)[:, 0, ids])
            bins.append(chosen)
            probabilities.append(probability)
            if index + 1 < num_tokens:
                hidden, valid = decode(self.model, ids[chosen], cache, valid)
        shape = (-1, config.chunk_length, config.action_width)
        return torch.stack(bins, 1).view(shape), torch.stack(probabilities, 1).view(shape)

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return choose_bins(logits, temperature=self.temperature, generator=self.generator)


def prefill(
    model: Prismatic,
    images: UInt8[Tensor, "batch views 3 rows columns"],
    text_ids: Int[Tensor, "batch text"],
    text_valid: Bool[Tensor, "batch text"],
    state: Float[Tensor, "batch state"] | None,
    *,
    num_further_tokens: int,
) -> tuple[Float[Tensor, "batch 1 width"], KVCache, Bool[Tensor, "batch prefix"]]:
    """Reads the prefix once.

    Returns the hidden state that the first action token is read from, the cache with room for
    `num_further_tokens`, and which cached tokens are not padding.
    """
    prefix, valid = model.embed_prefix(images, text_ids, text_valid, state)
    shape = model.config.decoder
    cache = KVCache(
        num_layers=shape.depth,
        batch_size=prefix.shape[0],
        num_kv_heads=shape.num_kv_heads,
        max_tokens=prefix.shape[1] + num_further_tokens,
        head_dim=shape.head_dim,
        dtype=prefix.dtype,
        device=prefix.device,
    )
    hidden = model.decoder(
        prefix,
        may_attend=model.may_attend(valid, prefix.shape[1]),
        positions=positions_from_valid(valid),
        cache=cache,
    )
    return last_valid(hidden, valid), cache, valid


def decode(
    model: Prismatic,
    token_ids: Int[Tensor, " batch"],
    cache: KVCache,
    valid: Bool[Tensor, "batch cached"],
) -> tuple[Float[Tensor, "batch 1 width"], Bool[Tensor, "batch cached_and_one"]]:
    """Reads one more token of each row; returns its hidden state and the grown validity."""
    valid = torch.cat([valid, valid.new_ones(valid.shape[0], 1)], dim=1)
    hidden = model.decoder(
        model.decoder.token_embedding(token_ids)[:, None],
        may_attend=valid[:, None, None],
        positions=valid.sum(dim=1, keepdim=True) - 1,
        cache=cache,
    )
    return hidden, valid
