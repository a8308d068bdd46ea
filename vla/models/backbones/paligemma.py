"""PaliGemma 1 and 2 (Beyer et al. 2024; Steiner et al. 2024): SigLIP, one linear layer, Gemma.

Sequence, left to right, with N image tokens a picture (256, 1024 or 4096):

    prefix  picture 1: N image tokens | picture 2 ... | BOS | text | newline
    suffix  answer | EOS

Attention is prefix-LM: the prefix sees all of itself, the suffix what came before; with `pictures_apart`, which no
release has, pictures see pictures alone, so that many questions can follow one picture in a row (`pack`). Positions
count from 1, and padding, on either side, takes none. Image tokens are not scaled as words are: words are multiplied
by sqrt(width) when they are embedded, and only words are looked up. (transformers before 5.4 scaled the whole
sequence, and so divided image tokens by sqrt(width) first. A checkpoint's weights are the same.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.backbones.paligemma_config import PaliGemmaConfig
from vla.models.connectors import ConnectorKind, LinearConnector, MLPConnector
from vla.models.decoder import Decoder
from vla.models.initialisation import initialise
from vla.models.sequence import Prefix, read, scatter_images
from vla.models.vision.pictures import PictureRows, all_pictures, normalised
from vla.models.vision.vit import ViT
from vla.nn.masks import PrefixAttention, causal_blocks, prefix_lm_blocks
from vla.nn.positions import positions_from_valid


class PaliGemma(nn.Module):
    """Tower, connector, decoder."""

    def __init__(self, config: PaliGemmaConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = ViT(config.tower, config.image_size)
        widths = config.tower.width, config.decoder.width
        is_linear = config.connector is ConnectorKind.LINEAR
        self.connector = LinearConnector(*widths) if is_linear else MLPConnector(*widths)
        self.decoder = Decoder(config.decoder)
        initialise(self)

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        images: UInt8[Tensor, "images 3 rows columns"] | None = None,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Returns the logits of every token; arguments as in `embed`."""
        prefix = self.embed(ids, valid, images, suffix_mask)
        return self.decoder.logits(read(self.decoder, prefix))

    def embed(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        images: UInt8[Tensor, "images 3 rows columns"] | None = None,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prefix:
        """Returns the embedded sequence.

        Args:
            ids: tokens, with the config's `image_id` wherever an image token goes.
            valid: False for padding, on either side.
            images: the pictures of all rows, in order, 0..255, from
                `PaliGemmaConfig.prepare_pictures`; None if
                there are none.
            suffix_mask: True for the answer and its EOS; None where there is no answer yet.

        Raises:
            ConfigError: pictures of another size, or not as many as the placeholders stand for.
        """
        pixels = None
        if images is not None:
            tower = self.config.tower
            pixels = normalised(images.movedim(1, -1), tower.pixel_mean, tower.pixel_std)
            pixels = pixels.movedim(-1, 1)
        return self.embed_normalised(ids, valid, pixels, suffix_mask)

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
        images = self.config.prepare_pictures(shown) if len(shown) else None
        return self.embed(ids, valid, images, suffix_mask)

    def num_image_tokens(self, shape: Sequence[int]) -> int:
        """Returns the image tokens of a picture (3, rows, columns) or clip (frames, 3, rows, columns)."""
        return self.config.num_image_tokens * (shape[0] if len(shape) == 4 else 1)

    @property
    def attention(self) -> PrefixAttention:
        """Prefix-LM, unless the config says otherwise."""
        return self.config.attention

    @property
    def filler_id(self) -> int:
        """Stands where there is no word; nothing looks it up."""
        return 0

    def embed_normalised(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        pixels: Float[Tensor, "images 3 rows columns"] | None = None,
        suffix_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Prefix:
        """Returns the same from pictures already in [-1, 1], the reference's `pixel_values`."""
        is_image = ids == self.config.image_id
        words = self.decoder.embed(ids.masked_fill(is_image, self.filler_id))
        image_tokens = words.new_zeros(0, words.shape[-1])
        if pixels is not None:
            image_tokens = self.image_tokens(pixels).flatten(0, 1)
        if suffix_mask is None:
            suffix_mask = torch.zeros_like(valid)
        is_causal = self.config.attention is PrefixAttention.CAUSAL
        blocks = causal_blocks(valid) if is_causal else prefix_lm_blocks(suffix_mask)
        if self.config.pictures_apart and not is_causal:
            blocks = blocks + (~is_image).long()
        return Prefix(
            embeddings=scatter_images(words, is_image, image_tokens),
            valid=valid,
            positions=positions_from_valid(valid) + 1,
            blocks=blocks,
            token_ids=ids.masked_fill(is_image, self.filler_id),
            suffix_mask=suffix_mask,
            is_image=is_image,
            keeps_blocks=True,
        )

    def image_tokens(
        self, pixels: Float[Tensor, "images 3 rows columns"]
    ) -> Float[Tensor, "images image_tokens width"]:
        """Returns the image tokens of pictures in [-1, 1]; raises ConfigError for another size than the config's."""
        size = self.config.image_size
        if pixels.shape[-2:] != (size, size):
            raise ConfigError(
                f"pictures of {pixels.shape[-2]} x {pixels.shape[-1]} px; this model reads {size} x {size}; "
                "use PaliGemmaConfig.prepare_pictures"
            )
        dtype = self.decoder.token_embedding.weight.dtype
        return self.connector(self.vision(pixels.to(dtype)))
