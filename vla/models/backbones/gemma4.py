"""Gemma 4: pictures of any shape among the words, with an encoder (E2B, E4B, 31B) or woven in without one (12B).

Sequence, left to right; every picture takes as many image tokens as its shape asks for, up to the token budget:

    BOS | words | start of picture | picture 1: image tokens, row after row | end of picture | words | ...

Padding goes on either side. Attention is causal; but in windowed layers of the 31B and the 12B the tokens of a picture
see each other, as far as the window reaches (google-deepmind/gemma; transformers issue 46711). In 5.23.0 the 12B's
forward still lets them do so in all layers, against its own docstring: `PictureAttention.WHOLE`.

with encoder    patches of 16 px -> ViT -> average of 3 x 3 -> RMS norm -> linear -> image tokens
woven           patches of 48 px -> norm, linear, norm, + place, norm -> RMS norm -> linear -> image tokens
spatial         the same without the last linear layer, and the decoder turns queries and keys by (time, row, column)

The third is no release's: all of those have a projection and 1-D positions. Experts and audio are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.backbones.gemma4_config import Gemma4Config, PictureAttention
from vla.models.connectors import AveragePoolConnector, NormConnector
from vla.models.decoder import Decoder
from vla.models.initialisation import initialise
from vla.models.sequence import Prefix, read, scatter_images
from vla.models.vision.pictures import PictureRows, all_pictures
from vla.models.vision.raw_patches import RawPatchEmbedding
from vla.models.vision.vit import ViT
from vla.nn.masks import PrefixAttention, causal_blocks, island_blocks
from vla.nn.positions import mrope_positions, positions_from_valid


class Gemma4(nn.Module):
    """Tower or patch embedding, connector, decoder."""

    def __init__(self, config: Gemma4Config) -> None:
        super().__init__()
        self.config = config
        width, tower = config.decoder.width, config.tower
        self.connector = None
        if tower is not None:
            self.vision = ViT(tower)
            self.connector = AveragePoolConnector(
                tower.width, width, side=config.pool_size, is_standardised=config.is_standardised
            )
        else:
            size, patch_width = config.patch_size, config.patch_width
            self.vision = RawPatchEmbedding(size, patch_width, config.num_axis_positions)
            if config.has_projection:
                self.connector = NormConnector(patch_width, width)
        self.decoder = Decoder(config.decoder)
        initialise(self)

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        patches: Float[Tensor, "pictures patches values"] | None = None,
        places: Int[Tensor, "pictures patches 2"] | None = None,
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Returns the logits of every token; arguments as in `embed`."""
        prefix = self.embed(ids, valid, patches, places)
        return self.decoder.logits(read(self.decoder, prefix))

    def embed(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        patches: Float[Tensor, "pictures patches values"] | None = None,
        places: Int[Tensor, "pictures patches 2"] | None = None,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prefix:
        """Returns the embedded sequence, with its positions and masks.

        Args:
            ids: tokens, with the config's `image_id` at every place of an image token.
            valid: False for padding, on either side.
            patches: of all pictures, in the order in which the rows show them, from `Gemma4Config.prepare_pictures`,
                in [0, 1]; None where there are only words.
            places: (column, row) of every patch; (-1, -1) for padding.
            suffix_mask: True for the answer; prompt and answer are read causally alike.

        Raises:
            ConfigError: patches or grids of a size that the model does not read, or not as many image tokens as the
                prompts keep places for.
        """
        is_image = (ids == self.config.image_id) & valid
        islands, seen = island_blocks(is_image), self.config.picture_attention
        text_ids = ids.masked_fill(is_image, self.config.pad_id)
        embeddings = self.decoder.embed(text_ids)
        if patches is None or places is None:
            patches = embeddings.new_zeros(0, 0, 3 * self.config.pixels_per_patch**2)
            places = ids.new_zeros(0, 0, 2)
        return Prefix(
            embeddings=scatter_images(embeddings, is_image, self.image_tokens(patches, places)),
            valid=valid,
            positions=self._positions(is_image, valid, places),
            blocks=islands if seen is PictureAttention.WHOLE else causal_blocks(valid),
            near_blocks=islands if seen is PictureAttention.NEAR else None,
            keeps_blocks=seen is PictureAttention.WHOLE,
            token_ids=text_ids,
            suffix_mask=torch.zeros_like(valid) if suffix_mask is None else suffix_mask,
            is_image=is_image,
        )

    def embed_pictures(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        pictures: PictureRows,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prefix:
        """Returns the same from pictures of any sizes, row by row; a clip is read as that many pictures.

        See `vla.models.sequence.Backbone`.
        """
        shown = all_pictures(pictures)
        if not len(shown):
            return self.embed(ids, valid, suffix_mask=suffix_mask)
        prepared = self.config.prepare_pictures(shown)
        longest = int(prepared.valid.sum(dim=1).amax())
        patches, places = prepared.pixels[:, :longest], prepared.positions[:, :longest]
        return self.embed(ids, valid, patches, places, suffix_mask)

    def num_image_tokens(self, shape: Sequence[int]) -> int:
        """Returns the image tokens of a picture (3, rows, columns) or clip (frames, 3, rows, columns)."""
        return self.config.num_image_tokens(shape)

    @property
    def attention(self) -> PrefixAttention:
        """Causal."""
        return PrefixAttention.CAUSAL

    @property
    def filler_id(self) -> int:
        """What per-layer embeddings look up where there is no word."""
        return self.config.pad_id

    def image_tokens(
        self,
        patches: Float[Tensor, "pictures patches values"],
        places: Int[Tensor, "pictures patches 2"],
    ) -> Float[Tensor, "tokens width"]:
        """Returns the image tokens of all pictures, one after the other; arguments as in `embed`."""
        self._check(patches, places)
        dtype = self.decoder.token_embedding.weight.dtype
        if not patches.numel():
            return patches.new_zeros(0, self.config.decoder.width, dtype=dtype)
        valid, places = places[..., 0] >= 0, places.clamp(min=0)
        if isinstance(self.vision, ViT) and isinstance(self.connector, AveragePoolConnector):
            places = places.flip(-1)  # the tower's are (row, column)
            is_full = bool(valid.all())
            pixels = (2.0 * patches - 1.0).to(dtype)
            features = self.vision.encode(pixels, places, None if is_full else valid)
            tokens, is_there = self.connector(features, places, valid)
            return tokens[is_there]
        tokens = self.vision(patches[valid].to(dtype), places[valid])
        return tokens if self.connector is None else self.connector(tokens)

    def _positions(self, is_image: Tensor, valid: Tensor, places: Tensor) -> Tensor:
        start = self.config.spatial_start
        if start is None:
            return positions_from_valid(valid)
        grids = _grids(places) // self.config.patches_per_side
        grids = nn.functional.pad(grids, (1, 0), value=1)  # one time step
        return mrope_positions(is_image, grids, valid, start)

    def _check(self, patches: Tensor, places: Tensor) -> None:
        size, found = self.config.pixels_per_patch, patches.shape[-1]
        if found != 3 * size**2:
            raise ConfigError(
                f"a patch has {found} values; this model reads {3 * size**2}, squares of {size} px in 3 colours; "
                "use Gemma4Config.prepare_pictures"
            )
        grids, side, limit = _grids(places), self.config.patches_per_side, self.config.max_grid
        if bool((grids % side).any() or (grids > limit).any()):
            raise ConfigError(
                f"pictures have rows and columns of patches {grids.tolist()}; this model reads multiples of {side} up "
                f"to {limit}; use Gemma4Config.prepare_pictures"
            )


def _grids(places: Tensor) -> Int[Tensor, "pictures 2"]:
    """Rows and columns of patches of every picture."""
    return places.flip(-1).amax(dim=1) + 1 if len(places) else places.new_zeros(0, 2)
