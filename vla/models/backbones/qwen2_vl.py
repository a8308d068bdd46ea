"""Qwen2-VL: pictures and clips at their own resolution and shape, among words (Wang et al. 2024).

Sequence, left to right, with as many pictures and clips as there are, anywhere:

    words ... <|vision_start|> | N image tokens | <|vision_end|> words ...      padded left or right

A picture of R x C tokens (28 x 28 pixels each) has N = R C; a clip has N = T R C, with one step of T for every two
frames. In the ids a placeholder stands at each of the N places. The tower reads every picture, and every step of a
clip, by itself; the decoder reads all of it causally, each token turned by its time, row and column (M-RoPE).

Padding takes no position and nobody attends to it: a padded row equals the same row without padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vla.errors import ConfigError
from vla.models.backbones.qwen2_vl_config import Qwen2VLConfig
from vla.models.connectors import MergeConnector
from vla.models.decoder import Decoder
from vla.models.initialisation import initialise
from vla.models.sequence import Prefix, read, scatter_images
from vla.models.vision.pictures import PictureRows
from vla.models.vision.vit import ViT
from vla.nn.masks import PrefixAttention, causal_blocks
from vla.nn.positions import grid_positions, mrope_positions, positions_from_valid


class Qwen2VL(nn.Module):
    """A vision tower for any shape of picture, a merger of 2 x 2 patches, and a decoder."""

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = ViT(config.tower)
        self.connector = MergeConnector(
            config.tower.width, config.decoder.width, side=config.merge_size
        )
        self.decoder = Decoder(config.decoder)
        initialise(self)

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        patches: Float[Tensor, "patches values"] | None = None,
        grids: Int[Tensor, "pictures 3"] | None = None,
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Returns logits over the next token at every place; arguments as in `embed`."""
        prefix = self.embed(ids, valid, patches, grids)
        return self.decoder.logits(read(self.decoder, prefix))

    def embed(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        patches: Float[Tensor, "patches values"] | None = None,
        grids: Int[Tensor, "pictures 3"] | None = None,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prefix:
        """Returns the embedded sequence, with its positions and masks.

        Args:
            ids: tokens, with `image_id` or `video_id` at every place of an image token.
            valid: False for padding, on either side.
            patches: of all pictures and clips, from `Qwen2VLConfig.prepare_pictures` and `prepare_clips`, one after
                the other in the order in which the rows show them; None where there are only words.
            grids: time steps, rows and columns of patches of each; a picture has one step.
            suffix_mask: True for the answer; prompt and answer are read causally alike.

        Raises:
            ConfigError: patches do not fit the grids or the tower, grids do not fit the merger, or the prompts keep
                more or fewer places than the pictures have tokens.
        """
        embeddings = self.decoder.embed(ids)
        is_picture = ((ids == self.config.image_id) | (ids == self.config.video_id)) & valid
        if patches is None or grids is None:
            patches = embeddings.new_zeros(0, self.vision.patches.projection.in_features)
            grids = ids.new_zeros(0, 3)
        tokens = self.image_tokens(patches, grids)
        merged = grids // grids.new_tensor([1, self.config.merge_size, self.config.merge_size])
        return Prefix(
            embeddings=scatter_images(embeddings, is_picture, tokens),
            valid=valid,
            positions=self._positions(is_picture, merged, valid),
            blocks=causal_blocks(valid),
            token_ids=ids,
            suffix_mask=torch.zeros_like(valid) if suffix_mask is None else suffix_mask,
            is_image=is_picture,
        )

    def embed_pictures(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        pictures: PictureRows,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prefix:
        """Returns the same from pictures and clips of any sizes, row by row; see `vla.models.sequence.Backbone`."""
        packed = self.config.prepare(pictures)
        if packed is None:
            return self.embed(ids, valid, suffix_mask=suffix_mask)
        return self.embed(ids, valid, packed.pixels, packed.grids, suffix_mask)

    def num_image_tokens(self, shape: Sequence[int]) -> int:
        """Returns the image tokens of a picture (3, rows, columns) or clip (frames, 3, rows, columns)."""
        return self.config.num_image_tokens(shape)

    @property
    def attention(self) -> PrefixAttention:
        """Causal."""
        return PrefixAttention.CAUSAL

    @property
    def filler_id(self) -> int:
        """Stands where there is neither word nor picture; nothing looks it up."""
        return 0

    def image_tokens(
        self, patches: Float[Tensor, "patches values"], grids: Int[Tensor, "pictures 3"]
    ) -> Float[Tensor, "tokens width"]:
        """Returns the tokens of all pictures and clips, one after the other; arguments as in `embed`."""
        self._check(patches, grids)
        projection = self.vision.patches.projection
        patches = patches.to(projection.weight.dtype)
        if not len(grids):
            return patches.new_zeros(0, self.config.decoder.width)
        shapes = [(r, c) for steps, r, c in grids.tolist() for _ in range(steps)]
        lengths = [rows * columns for rows, columns in shapes]
        places = {shape: self._places(*shape, patches.device) for shape in set(shapes)}
        order = torch.arange(max(lengths), device=patches.device)
        valid = order < torch.tensor(lengths, device=patches.device)[:, None]
        features = self.vision.encode(
            pad_sequence(list(patches.split(lengths)), batch_first=True),
            pad_sequence([places[shape] for shape in shapes], batch_first=True),
            valid if min(lengths) < max(lengths) else None,
        )
        return self.connector(features[valid])

    def _positions(self, is_picture: Tensor, grids: Tensor, valid: Tensor) -> Tensor:
        if self.config.decoder.rope_sections is None:
            return positions_from_valid(valid)
        return mrope_positions(is_picture, grids, valid, self.config.picture_start)

    def _places(self, rows: int, columns: int, device: torch.device) -> Int[Tensor, "patches 2"]:
        """(row, column) of the patches of one step, those that become one token next to each other."""
        side = self.config.merge_size
        places = grid_positions(rows, columns, device).unflatten(
            0, (-1, side, columns // side, side)
        )
        return places.transpose(1, 2).flatten(0, 3)

    def _check(self, patches: Tensor, grids: Tensor) -> None:
        side, width = self.config.merge_size, self.vision.patches.projection.in_features
        if patches.shape[1] != width:
            raise ConfigError(
                f"a patch has {patches.shape[1]} values; this tower reads {width}: {self.config.tower.num_frames} "
                f"frames of {self.config.tower.patch_size} x {self.config.tower.patch_size} pixels in 3 colours"
            )
        if bool((grids < 1).any() | (grids[:, 1:] % side).any()):
            raise ConfigError(
                f"grids of patches are {grids.tolist()}; every number must be at least 1, and rows and columns "
                f"multiples of {side}; use Qwen2VLConfig.prepare_pictures"
            )
        if len(patches) != int(grids.prod(dim=1).sum()):
            raise ConfigError(
                f"the grids ask for {int(grids.prod(dim=1).sum())} patches, and {len(patches)} were given; "
                "pass the two as they were prepared"
            )
