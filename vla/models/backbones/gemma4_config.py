"""Everything that is chosen about a Gemma 4, the released shapes, and small ones.

Experts (26B-A4B) and audio are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from vla.errors import ConfigError
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.models.vision.pictures import Pictures
from vla.models.vision.preprocessing import (
    PaddedPatches,
    gemma4_patches,
    gemma4_unified_patches,
)
from vla.models.vision.resize_rules import gemma4_size
from vla.models.vision.vit_config import ViTConfig
from vla.nn.mlp import Activation
from vla.nn.norms import Norm
from vla.nn.positions import PictureStart


class PictureAttention(Enum):
    """Which tokens of one picture see each other, besides those before them."""

    CAUSAL = "causal"  # none: E2B, E4B
    NEAR = "near"  # in windowed layers, those within the window: 31B, 12B
    WHOLE = (
        "whole"  # in all layers, all of them: Gemma 3, and the 12B as transformers 5.23.0 runs it
    )


@dataclass(kw_only=True)
class Gemma4Config:
    """Shape of a Gemma 4. Without a `tower` it is the woven form: patches go straight to the decoder."""

    decoder: DecoderConfig = field(default_factory=lambda: _decoder_12b())
    tower: ViTConfig | None = None
    pool_size: int = 3  # with a tower: side of the squares of patches that become one token
    is_standardised: bool = False  # with a tower: pooled tokens are shifted and scaled
    patch_size: int = 48  # pixels; without a tower, where each patch is one token
    patch_width: int = 3840  # without a tower: channels before the projection
    num_axis_positions: int = 1120  # without a tower: rows and columns that have a place
    has_projection: bool = True  # from a token's channels to the decoder's width
    picture_attention: PictureAttention = PictureAttention.NEAR
    spatial_start: PictureStart | None = None  # None: positions are 1-D, as in every release
    image_id: int = 258880  # stands in the prompt once for every image token
    pad_id: int = 0  # looked up by per-layer embeddings where an image token stands
    token_budget: int = 280  # image tokens a picture may take: 70, 140, 280, 560 or 1120

    def __post_init__(self) -> None:
        if not self.has_projection and (self.tower or self.patch_width != self.decoder.width):
            raise ConfigError(
                f"has_projection=false needs patches as wide as the decoder ({self.decoder.width}, not "
                f"{self.patch_width}) and no tower; change patch_width, or leave the projection in"
            )
        num_axes = len(self.decoder.rope_sections or [0])
        if num_axes != (1 if self.spatial_start is None else 3):
            raise ConfigError(
                f"spatial_start={self.spatial_start} and {num_axes} rope_sections of the decoder do not fit: "
                "turning by time, row and column takes both, three of them; 1-D positions take neither"
            )

    @property
    def pixels_per_patch(self) -> int:
        """Side of a patch."""
        return self.patch_size if self.tower is None else self.tower.patch_size

    @property
    def patches_per_side(self) -> int:
        """Patches along the side of the square that becomes one image token."""
        return 1 if self.tower is None else self.pool_size

    @property
    def max_grid(self) -> int:
        """Rows, or columns, of patches that have a place of their own."""
        return self.num_axis_positions if self.tower is None else self.tower.num_axis_positions

    def prepare_pictures(self, pictures: Pictures) -> PaddedPatches:
        """Returns patches of pictures (3, rows, columns) of any sizes, uint8, each within the token budget."""
        if self.tower is None:
            budget, size = self.token_budget, self.patch_size
            return gemma4_unified_patches(pictures, token_budget=budget, token_size=size)
        return gemma4_patches(
            pictures,
            token_budget=self.token_budget,
            patch_size=self.tower.patch_size,
            pool_size=self.pool_size,
        )

    def num_image_tokens(self, shape: Sequence[int]) -> int:
        """Returns the tokens of a picture (3, rows, columns), or of the frames of a clip (frames, 3, rows, columns)."""
        side = self.pixels_per_patch * self.patches_per_side
        size = gemma4_size(*shape[-2:], token_budget=self.token_budget, token_size=side)
        return (size[0] // side) * (size[1] // side) * (shape[0] if len(shape) == 4 else 1)


def gemma4_e2b() -> Gemma4Config:
    """Returns google/gemma-4-E2B without its audio tower.

    Source: transformers convert_gemma4_weights.py; what it leaves open (window, heads, tables, token ids) are the
    defaults of configuration_gemma4.py in 5.5.4.
    """
    decoder = _decoder(1536, 35, num_heads=8, num_kv_heads=1, full_every=5)
    decoder.num_shared_layers, decoder.shared_mlp_factor = 20, 2
    return _small(decoder)


def gemma4_e4b() -> Gemma4Config:
    """Returns google/gemma-4-E4B without its audio tower. Source: as for `gemma4_e2b`."""
    decoder = _decoder(2560, 42, num_heads=8, num_kv_heads=2)
    decoder.num_shared_layers = 18
    return _small(decoder)


def gemma4_31b() -> Gemma4Config:
    """Returns google/gemma-4-31B. Source: as for `gemma4_e2b`."""
    decoder = _decoder(5376, 60, num_heads=32, num_kv_heads=16)
    decoder.full_num_kv_heads, decoder.full_values_are_keys = 4, True
    decoder.window, decoder.max_tokens = 1024, 262144
    return Gemma4Config(decoder=decoder, tower=presets.gemma4_tower_large(), is_standardised=True)


def gemma4_12b_unified() -> Gemma4Config:
    """Returns google/gemma-4-12B, the woven form, without its audio projection.

    Source: transformers convert_gemma4_unified_weights.py; what it leaves open (window, heads, patches, token ids) are
    the defaults of configuration_gemma4_unified.py in 5.23.0.
    """
    return Gemma4Config()


def tiny_gemma4(vocab_size: int = 512) -> Gemma4Config:
    """Returns the woven form in two million parameters, for pictures of about 64 px and a CPU.

    Its image token is the last of the vocabulary.
    """
    decoder = replace(
        _decoder(192, 4, num_heads=4, num_kv_heads=2, full_every=4),
        vocab_size=vocab_size,
        head_dim=48,
        mlp_width=512,
        window=64,
        full_head_dim=None,
        max_tokens=1024,
    )
    return Gemma4Config(
        decoder=decoder,
        patch_size=8,
        patch_width=192,
        num_axis_positions=70,
        image_id=vocab_size - 1,
        token_budget=70,
    )


def tiny_gemma4_encoder(vocab_size: int = 512) -> Gemma4Config:
    """Returns the form with an encoder: `tiny_gemma4` with a tower of 4 px patches, 2 x 2 of which become a token."""
    tower = replace(
        presets.gemma4_tower_large(),
        patch_size=4,
        width=128,
        depth=4,
        num_heads=4,
        mlp_width=256,
        num_axis_positions=140,
    )
    return replace(tiny_gemma4(vocab_size), tower=tower, pool_size=2)


def tiny_gemma4_spatial(vocab_size: int = 512) -> Gemma4Config:
    """Returns `tiny_gemma4` as textbooks tell it: nothing but the patch embedding between pixels and decoder, and time,
    row and column turning a third of each head each. No released checkpoint does either.
    """
    woven = tiny_gemma4(vocab_size)
    decoder = replace(woven.decoder, rope_sections=[8, 8, 8], full_rope_share=1.0)
    return replace(woven, decoder=decoder, has_projection=False, spatial_start=PictureStart.NEXT)


def _small(decoder: DecoderConfig) -> Gemma4Config:
    decoder.per_layer_width, decoder.per_layer_vocab_size = 256, decoder.vocab_size
    tower = presets.gemma4_tower_small()
    return Gemma4Config(decoder=decoder, tower=tower, picture_attention=PictureAttention.CAUSAL)


def _decoder_12b() -> DecoderConfig:
    decoder = _decoder(3840, 48, num_heads=16, num_kv_heads=8)
    decoder.full_num_kv_heads, decoder.full_values_are_keys = 1, True
    decoder.window, decoder.max_tokens = 1024, 262144
    return decoder


def _decoder(
    width: int, depth: int, *, num_heads: int, num_kv_heads: int, full_every: int = 6
) -> DecoderConfig:
    """What all of them share."""
    return DecoderConfig(
        vocab_size=262144,
        width=width,
        depth=depth,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=256,
        mlp_width=4 * width,
        activation=Activation.GELU_TANH,
        head=Head.TIED,
        norm=Norm.RMS,
        has_post_norms=True,
        has_qk_norm=True,
        has_v_norm=True,
        attention_scale=1.0,
        final_softcap=30.0,
        scales_embedding=True,
        window=512,
        full_layers=list(range(full_every - 1, depth, full_every)),
        full_rope_theta=1e6,
        full_rope_share=0.25,
        full_head_dim=512,
        full_num_kv_heads=num_kv_heads,
        has_layer_scalars=True,
        max_tokens=131072,
    )
