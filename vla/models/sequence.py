"""What a decoder is to read, for every backbone: image tokens and words in one row, with masks and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla.errors import ConfigError
from vla.models.decoder import Decoder
from vla.nn.kv_cache import KVCache
from vla.nn.masks import attention_mask


@dataclass(kw_only=True)
class Prefix:
    """An embedded sequence and everything the decoder must know to read it.

    Attributes:
        embeddings: (batch, tokens, width).
        valid: (batch, tokens) False for padding.
        positions: (batch, tokens), or (batch, tokens, 3) of time, row, column.
        blocks: (batch, tokens) who sees whom, see `vla.nn.masks`.
        near_blocks: the same for windowed layers, where it differs.
        token_ids: (batch, tokens) for per-layer embeddings, the padding id where an image token stands.
        keeps_blocks: in windowed layers too, all of a block sees all of it: PaliGemma 2, Gemma 3.
    """

    embeddings: Float[Tensor, "batch tokens width"]
    valid: Bool[Tensor, "batch tokens"]
    positions: Int[Tensor, "batch tokens *axes"]
    blocks: Int[Tensor, "batch tokens"]
    near_blocks: Int[Tensor, "batch tokens"] | None = None
    token_ids: Int[Tensor, "batch tokens"] | None = None
    keeps_blocks: bool = False


class Backbone(Protocol):
    """A vision-language model: it embeds what it is shown and told; the decoder reads it."""

    decoder: Decoder


def read(
    decoder: Decoder, prefix: Prefix, cache: KVCache | None = None
) -> Float[Tensor, "batch tokens width"]:
    """Returns the final hidden states of a whole sequence, leaving its keys and values in `cache` (empty before)."""
    near = None
    window = decoder.config.window
    if window is not None:
        blocks = prefix.blocks if prefix.near_blocks is None else prefix.near_blocks
        near = attention_mask(prefix.valid, blocks, window=window, keeps_blocks=prefix.keeps_blocks)
    return decoder(
        prefix.embeddings,
        may_attend=attention_mask(prefix.valid, prefix.blocks),
        may_attend_near=near,
        positions=prefix.positions,
        cache=cache,
        token_ids=prefix.token_ids,
    )


def next_positions(prefix: Prefix) -> Int[Tensor, " batch"]:
    """Returns the position after the last of each row: the largest over its valid tokens and all axes, plus one."""
    positions = prefix.positions
    if positions.dim() == 3:
        positions = positions.amax(dim=-1)
    return positions.masked_fill(~prefix.valid, -1).amax(dim=1) + 1


def scatter_images(
    embeddings: Float[Tensor, "batch tokens width"],
    is_image: Bool[Tensor, "batch tokens"],
    image_tokens: Float[Tensor, "image_tokens width"],
) -> Float[Tensor, "batch tokens width"]:
    """Returns `embeddings` with the image tokens in the places kept for them, in order.

    Raises:
        ConfigError: more or fewer places than image tokens.
    """
    num_places = int(is_image.sum())
    if num_places != image_tokens.shape[0]:
        raise ConfigError(
            f"the pictures give {image_tokens.shape[0]} image tokens, the prompts keep {num_places} places for them; "
            "write one placeholder token for each image token of every picture"
        )
    places = is_image[..., None].expand_as(embeddings)
    return embeddings.masked_scatter(places, image_tokens.to(embeddings.dtype))


def insert_after_bos(
    text: Float[Tensor, "batch text width"],
    text_valid: Bool[Tensor, "batch text"],
    image_tokens: Float[Tensor, "batch image_tokens width"],
    last: Float[Tensor, "batch 1 width"] | None = None,
) -> tuple[Float[Tensor, "batch prefix width"], Bool[Tensor, "batch prefix"]]:
    """Returns [BOS | image tokens | the other text tokens | last], and which of them are not padding."""
    is_image = text_valid.new_ones(image_tokens.shape[:2])
    parts = [text[:, :1], image_tokens, text[:, 1:]]
    valid = [text_valid[:, :1], is_image, text_valid[:, 1:]]
    if last is not None:
        parts.append(last)
        valid.append(is_image[:, :1])
    return torch.cat(parts, dim=1), torch.cat(valid, dim=1)
