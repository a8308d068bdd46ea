"""Prismatic, OpenVLA's kind of vision-language model (Karamcheti et al. 2024; Kim et al. 2024).

Sequence, left to right, with V views of N image tokens and T text tokens (BOS included):

    prefix  BOS | view 1: N image tokens | view 2 ... | text 1..T-1
    suffix  answer | end token, and then padding

Attention is causal (OpenVLA), or the prefix sees all of itself and the suffix what came before. Padding takes no
position and nobody attends to it: a padded row equals the same row without padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.connectors import FusedMLPProjector
from vla.models.decoder import Decoder
from vla.models.initialisation import initialise
from vla.models.sequence import Prefix, read
from vla.models.vision.fused import FusedTowers
from vla.models.vision.pictures import PictureRows, all_pictures, num_pictures
from vla.nn.masks import PrefixAttention, causal_blocks, prefix_lm_blocks
from vla.nn.positions import positions_from_valid


class Prismatic(nn.Module):
    """Vision towers, a connector, a decoder."""

    def __init__(self, config: PrismaticConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder.width
        self.vision = FusedTowers(config.towers, config.image_size)
        self.connector = FusedMLPProjector(self.vision.width, config.projector_width, width)
        self.view_embedding = (
            nn.Parameter(torch.zeros(config.num_views, 1, width)) if config.num_views > 1 else None
        )
        self.decoder = Decoder(config.decoder)
        initialise(self)

    def forward(
        self,
        ids: Int[Tensor, "batch text"],
        valid: Bool[Tensor, "batch text"],
        pictures: PictureRows,
        suffix_mask: Bool[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Returns the logits of every token of the sequence; arguments as in `embed_pictures`."""
        prefix = self.embed_pictures(ids, valid, pictures, suffix_mask)
        return self.decoder.logits(read(self.decoder, prefix))

    def embed_pictures(
        self,
        ids: Int[Tensor, "batch text"],
        valid: Bool[Tensor, "batch text"],
        pictures: PictureRows,
        suffix_mask: Bool[Tensor, "batch text"] | None = None,
    ) -> Prefix:
        """Returns the embedded sequence; see `vla.models.sequence.Backbone`. `ids` are words alone, BOS first.

        Rows come out padded on the right, and after their pictures if they show fewer than others. A clip is read as
        that many pictures.

        Raises:
            ConfigError: also where a row shows more pictures than the model has views.
        """
        if suffix_mask is None:
            suffix_mask = torch.zeros_like(valid)
        order = valid.long().argsort(dim=1, descending=True, stable=True)
        ids, valid, suffix_mask = (x.gather(1, order) for x in (ids, valid, suffix_mask))
        text = self.decoder.embed(ids)
        shown = all_pictures(pictures)
        images, is_there = text[:, :0], valid[:, :0]
        if len(shown):
            features = self.encode_pictures(self.config.prepare_pictures(shown))
            images, is_there = self._by_row(features, num_pictures(pictures))
        elsewhere = torch.zeros_like(is_there)
        whole = _after_bos(valid, is_there)
        suffix_mask = _after_bos(suffix_mask, elsewhere)
        return Prefix(
            embeddings=_after_bos(text.to(images.dtype), images),
            valid=whole,
            positions=positions_from_valid(whole),
            blocks=(
                causal_blocks(whole)
                if self.attention is PrefixAttention.CAUSAL
                else prefix_lm_blocks(suffix_mask)
            ),
            token_ids=_after_bos(ids, elsewhere.long() + self.filler_id),
            suffix_mask=suffix_mask,
            is_image=_after_bos(torch.zeros_like(valid), is_there),
        )

    def encode_pictures(
        self, images: UInt8[Tensor, "images 3 rows columns"]
    ) -> Float[Tensor, "images image_tokens width"]:
        """Returns the image tokens of pictures of the config's size, not yet marked by view."""
        return self.connector(self.vision(images))

    def num_image_tokens(self, shape: Sequence[int]) -> int:
        """Returns the image tokens of a picture (3, rows, columns) or clip (frames, 3, rows, columns)."""
        return self.vision.num_patches * (shape[0] if len(shape) == 4 else 1)

    @property
    def attention(self) -> PrefixAttention:
        """How the prefix attends to itself."""
        return self.config.attention

    @property
    def filler_id(self) -> int:
        """Stands where there is no word; nothing looks it up."""
        return 0

    def _by_row(
        self, features: Tensor, counts: list[int]
    ) -> tuple[Float[Tensor, "batch image_tokens width"], Bool[Tensor, "batch image_tokens"]]:
        """The image tokens of each row, marked by view, for the towers cannot tell views apart; and which there are."""
        num_views = max(counts)
        if num_views > self.config.num_views:
            raise ConfigError(
                f"a row shows {num_views} pictures; this model has num_views = {self.config.num_views}"
            )
        if min(counts) == num_views:
            tokens = features.unflatten(0, (-1, num_views))
            is_there = torch.ones_like(tokens[..., 0], dtype=torch.bool)
        else:
            views = torch.arange(num_views, device=features.device)
            is_shown = views < torch.tensor(counts, device=features.device)[:, None]
            tokens = features.new_zeros(*is_shown.shape, *features.shape[1:])
            tokens[is_shown] = features
            is_there = is_shown[..., None].expand(tokens.shape[:3])
        if self.view_embedding is not None:
            tokens = tokens + self.view_embedding[:num_views].to(tokens.dtype)
        return tokens.flatten(1, 2), is_there.flatten(1, 2)


def _after_bos(words: Tensor, images: Tensor) -> Tensor:
    return torch.cat([words[:, :1], images, words[:, 1:]], dim=1)
