"""What a decoder is to read, for every backbone: image tokens and words in one row, with masks and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.decoder import Decoder
from vla.models.vision.pictures import PictureRows
from vla.nn.kv_cache import KVCache
from vla.nn.masks import PrefixAttention, attention_mask, tokens_of_earlier_documents


@dataclass(kw_only=True)
class Prefix:
    """An embedded sequence and everything the decoder must know to read it.

    Attributes:
        embeddings: (batch, tokens, width).
        valid: (batch, tokens) False for padding.
        positions: (batch, tokens), or (batch, tokens, 3) of time, row, column.
        blocks: (batch, tokens) who sees whom, see `vla.nn.masks`.
        near_blocks: the same for windowed layers, where it differs.
        token_ids: (batch, tokens) of words; the backbone's `filler_id` where something else stands.
        suffix_mask: (batch, tokens) True for the answer; nowhere where there is none yet.
        is_image: (batch, tokens) True for image tokens.
        documents: (batch, tokens) where several questions share their picture, see `pack`.
        keeps_blocks: in windowed layers too, all of a block sees all of it: PaliGemma 2, Gemma 3.
    """

    embeddings: Float[Tensor, "batch tokens width"]
    valid: Bool[Tensor, "batch tokens"]
    positions: Int[Tensor, "batch tokens *axes"]
    blocks: Int[Tensor, "batch tokens"]
    token_ids: Int[Tensor, "batch tokens"]
    suffix_mask: Bool[Tensor, "batch tokens"]
    is_image: Bool[Tensor, "batch tokens"]
    near_blocks: Int[Tensor, "batch tokens"] | None = None
    documents: Int[Tensor, "batch tokens"] | None = None
    keeps_blocks: bool = False


class Backbone(Protocol):
    """A vision-language model: it embeds what it is shown and told; the decoder reads it.

    Attributes:
        decoder: reads, and writes words with its own or its tied head.
        attention: how a prefix attends to itself.
        filler_id: id that stands for tokens that are no words, for per-layer embeddings.
    """

    decoder: Decoder

    @property
    def attention(self) -> PrefixAttention: ...

    @property
    def filler_id(self) -> int: ...

    def embed_pictures(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        pictures: PictureRows,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prefix:
        """Returns the embedded sequence.

        Args:
            ids: tokens, with the family's placeholders (Prismatic has none).
            valid: False for padding, on either side.
            pictures: what each row shows, in uint8: pictures (3, rows, columns) or clips (frames, 3, rows, columns) of
                any sizes, or one tensor (batch, pictures, 3, rows, columns).
            suffix_mask: True for the answer and its end token; None where there is none yet.

        Raises:
            ConfigError: a picture that the model cannot read, or more or fewer placeholders than image tokens.
        """
        ...

    def num_image_tokens(self, shape: Sequence[int]) -> int:
        """Returns how many image tokens a picture (3, rows, columns) or clip (frames, 3, rows, columns) takes."""
        ...


def read(
    decoder: Decoder, prefix: Prefix, cache: KVCache | None = None
) -> Float[Tensor, "batch tokens width"]:
    """Returns the final hidden states of the tokens that are not in `cache` yet, leaving their keys and values there.

    Args:
        decoder: of the backbone that made the sequence.
        prefix: the whole sequence, what the cache holds included.
        cache: of its first tokens; empty at first, None to keep nothing.
    """
    known = 0 if cache is None else cache.length
    num_queries = prefix.embeddings.shape[1] - known
    near = None
    window = decoder.config.window
    if window is not None:
        blocks = prefix.blocks if prefix.near_blocks is None else prefix.near_blocks
        near = attention_mask(
            prefix.valid,
            blocks,
            window=window,
            keeps_blocks=prefix.keeps_blocks,
            documents=prefix.documents,
            num_queries=num_queries,
        )
    return decoder(
        prefix.embeddings[:, known:],
        may_attend=attention_mask(
            prefix.valid, prefix.blocks, documents=prefix.documents, num_queries=num_queries
        ),
        may_attend_near=near,
        positions=prefix.positions[:, known:],
        cache=cache,
        token_ids=prefix.token_ids[:, known:],
    )


def continued(
    prefix: Prefix,
    suffix: Float[Tensor, "batch suffix width"],
    *,
    is_parallel: bool,
    joins: bool = False,
    suffix_ids: Int[Tensor, "batch suffix"] | None = None,
    filler_id: int = 0,
) -> Prefix:
    """Returns the sequence [prefix | suffix]; `read` it with a cache of the prefix, or as a whole, to the same effect.

    Args:
        prefix: padded on either side; padding takes no position, so the suffix follows each row's own last token.
        suffix: embedded tokens or slots, none of them padding.
        is_parallel: they see each other; else each sees those before it.
        joins: they are part of the prefix's last block, which sees them too (the cache then cannot be used).
        suffix_ids: for per-layer embeddings; None where slots are no tokens.
        filler_id: stands for slots there.
    """
    num_new = suffix.shape[1]
    order = torch.arange(num_new, device=suffix.device).expand(suffix.shape[0], -1)
    positions = next_positions(prefix)[:, None] + order
    if prefix.positions.dim() == 3:
        positions = positions[..., None].expand(-1, -1, prefix.positions.shape[2])
    after = torch.zeros_like(order) if joins else torch.ones_like(order)
    if not (is_parallel or joins):
        after = after + order

    def followed(blocks: Tensor) -> Tensor:
        return torch.cat([blocks, blocks.amax(dim=1, keepdim=True) + after], dim=1)

    if suffix_ids is None:
        suffix_ids = torch.full_like(order, filler_id)
    return replace(
        prefix,
        embeddings=torch.cat([prefix.embeddings, suffix.to(prefix.embeddings.dtype)], dim=1),
        valid=F.pad(prefix.valid, (0, num_new), value=True),
        positions=torch.cat([prefix.positions, positions], dim=1),
        blocks=followed(prefix.blocks),
        near_blocks=None if prefix.near_blocks is None else followed(prefix.near_blocks),
        token_ids=torch.cat([prefix.token_ids, suffix_ids], dim=1),
        suffix_mask=F.pad(prefix.suffix_mask, (0, num_new), value=False),
        is_image=F.pad(prefix.is_image, (0, num_new), value=False),
    )


def pack(prefix: Prefix, documents: Int[Tensor, "batch tokens"]) -> Prefix:
    """Returns the sequence read as several: each document follows the head directly and knows nothing of the others.

    The head (pictures, say) must not look at what comes after it: then a packed row equals as many rows with the head
    before each document, and costs the head once. Right for causal families, and for prefix-LM ones whose pictures
    see pictures alone.

    Args:
        prefix: head and documents, one after the other, padded on the right.
        documents: -1 over the head, then the number of each token's document; anything where there is padding.
    """
    skipped = tokens_of_earlier_documents(prefix.valid, documents)
    if prefix.positions.dim() == 3:
        skipped = skipped[..., None]
    positions = (prefix.positions - skipped).clamp(min=0)
    return replace(prefix, positions=positions, documents=documents)


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
