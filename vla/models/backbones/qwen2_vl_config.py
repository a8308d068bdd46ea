"""Everything that is chosen about a Qwen2-VL, the released shapes, and a small one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.models.vision.pictures import PictureRows, Pictures
from vla.models.vision.preprocessing import (
    PackedPatches,
    openvla_pictures,
    qwen2_vl_clip_patches,
    qwen2_vl_patches,
)
from vla.models.vision.resize_rules import (
    QWEN2_VL_IMAGE_PIXELS,
    QWEN2_VL_VIDEO_PIXELS,
    qwen2_vl_size,
)
from vla.models.vision.vit_config import ViTConfig
from vla.nn.positions import PictureStart

RELEASED_MAX_PIXELS = (
    28 * 28 * 16384
)  # preprocessor_config.json of the checkpoints; 1,280 tokens in transformers


@dataclass(kw_only=True)
class Qwen2VLConfig:
    """Shape and behaviour of a Qwen2-VL. The defaults are the 2B's."""

    tower: ViTConfig = field(default_factory=presets.qwen2_vl_tower)
    decoder: DecoderConfig = field(default_factory=decoder_presets.qwen2_1_5b)
    merge_size: int = 2  # this many patches each way become one token
    picture_start: PictureStart = PictureStart.NEXT
    image_id: int = 151655  # stands for each token of a picture
    video_id: int = 151656  # ... of a clip
    fixed_size: int | None = None  # all are stretched to this square first, as PaliGemma does
    min_pixels: int = QWEN2_VL_IMAGE_PIXELS[0]  # smaller pictures are enlarged
    max_pixels: int = QWEN2_VL_IMAGE_PIXELS[
        1
    ]  # larger ones reduced: tokens, so time, against detail
    min_clip_pixels: int = QWEN2_VL_VIDEO_PIXELS[0]  # of a frame
    max_clip_pixels: int = QWEN2_VL_VIDEO_PIXELS[1]

    def __post_init__(self) -> None:
        for kind in ("pixels", "clip_pixels"):
            low, high = getattr(self, f"min_{kind}"), getattr(self, f"max_{kind}")
            if not self.token_side**2 <= high >= low > 0:
                raise ConfigError(
                    f"min_{kind} = {low}, max_{kind} = {high}; expected 0 < min_{kind} <= max_{kind}, and room for "
                    f"one token of {self.token_side} x {self.token_side} pixels"
                )
        for name in ("image_id", "video_id"):
            if not 0 <= getattr(self, name) < self.decoder.vocab_size:
                raise ConfigError(
                    f"{name} = {getattr(self, name)} is not among the {self.decoder.vocab_size} tokens; "
                    "read it from the tokenizer"
                )
        sections = self.decoder.rope_sections
        if sections is not None and len(sections) != 3:
            raise ConfigError(
                f"decoder.rope_sections = {sections}; Qwen2-VL turns by time, row and column: give three numbers, "
                "or none for positions that count tokens"
            )
        if self.fixed_size is not None and (
            self.fixed_size < 1 or self.fixed_size % self.token_side
        ):
            raise ConfigError(
                f"fixed_size = {self.fixed_size}; a token covers {self.token_side} px, so it must be a positive "
                "multiple of that, or null for pictures of their own size"
            )

    @property
    def token_side(self) -> int:
        """Side of the square of pixels that becomes one token."""
        return self.tower.patch_size * self.merge_size

    def prepare_pictures(self, pictures: Pictures) -> PackedPatches:
        """Returns patches of pictures (3, rows, columns) of any sizes, uint8, each within the bounds on pixels."""
        if self.fixed_size is not None:
            pictures = openvla_pictures(pictures, self.fixed_size)
        return qwen2_vl_patches(
            pictures,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            patch_size=self.tower.patch_size,
            merge_size=self.merge_size,
            temporal_patch_size=self.tower.num_frames,
        )

    def prepare_clips(self, clips: Sequence[Tensor]) -> PackedPatches:
        """Returns patches of clips (frames, 3, rows, columns) of any sizes, uint8, each within the bounds on pixels."""
        if self.fixed_size is not None:
            clips = [openvla_pictures(clip, self.fixed_size) for clip in clips]
        return qwen2_vl_clip_patches(
            clips,
            min_pixels=self.min_clip_pixels,
            max_pixels=self.max_clip_pixels,
            patch_size=self.tower.patch_size,
            merge_size=self.merge_size,
            temporal_patch_size=self.tower.num_frames,
        )

    def prepare(self, rows: PictureRows) -> PackedPatches | None:
        """Returns patches of all that the rows show, pictures and clips, in order; None where they show nothing."""
        if isinstance(rows, Tensor):
            return self.prepare_pictures(rows.flatten(0, 1)) if rows.shape[1] else None
        shown = [item for row in rows for item in row]
        is_clip = [item.ndim == 4 for item in shown]
        if not shown or not any(is_clip):
            return self.prepare_pictures(shown) if shown else None
        if all(is_clip):
            return self.prepare_clips(shown)
        each = [
            self.prepare_clips([x]) if x.ndim == 4 else self.prepare_pictures([x]) for x in shown
        ]
        return PackedPatches(
            pixels=torch.cat([packed.pixels for packed in each]),
            grids=torch.cat([packed.grids for packed in each]),
            num_tokens=[packed.num_tokens[0] for packed in each],
        )

    def num_image_tokens(self, shape: Sequence[int]) -> int:
        """Returns the tokens of a picture (3, rows, columns) or clip (frames, 3, rows, columns)."""
        is_clip = len(shape) == 4
        sides = shape[-2:] if self.fixed_size is None else (self.fixed_size, self.fixed_size)
        size = qwen2_vl_size(
            *sides,
            factor=self.token_side,
            min_pixels=self.min_clip_pixels if is_clip else self.min_pixels,
            max_pixels=self.max_clip_pixels if is_clip else self.max_pixels,
        )
        num_steps = -(-shape[0] // self.tower.num_frames) if is_clip else 1
        return num_steps * (size[0] // self.token_side) * (size[1] // self.token_side)


def qwen2_vl_2b() -> Qwen2VLConfig:
    """Returns Qwen2-VL-2B. Source: config.json and preprocessor_config.json of Qwen/Qwen2-VL-2B-Instruct."""
    return Qwen2VLConfig(max_pixels=RELEASED_MAX_PIXELS)


def qwen2_vl_7b() -> Qwen2VLConfig:
    """Returns Qwen2-VL-7B. Source: config.json and preprocessor_config.json of Qwen/Qwen2-VL-7B-Instruct."""
    return Qwen2VLConfig(decoder=decoder_presets.qwen2_7b(), max_pixels=RELEASED_MAX_PIXELS)


def tiny(text_vocab_size: int, *, is_textbook: bool = False) -> Qwen2VLConfig:
    """Returns a model of some three million parameters for pictures of 64 px (16 tokens), to be trained on a CPU.

    Args:
        text_vocab_size: tokens; the two placeholders are added after them.
        is_textbook: the head in thirds, each turning within its own channels, and t = 0 all over a still picture;
            False follows the released models' proportions, a quarter for time and the rest for row and column.
    """
    decoder = replace(
        decoder_presets.tiny(text_vocab_size + 2),
        rope_theta=1e6,
        head=Head.TIED,
        qkv_bias=True,
        rope_sections=[4, 6, 6],
    )
    if is_textbook:
        thirds = {"num_heads": 8, "num_kv_heads": 8, "head_dim": 24, "rope_sections": [4, 4, 4]}
        decoder = replace(decoder, rope_is_apart=True, **thirds)
    return Qwen2VLConfig(
        tower=replace(
            presets.qwen2_vl_tower(), patch_size=8, width=128, depth=4, num_heads=4, mlp_width=512
        ),
        decoder=decoder,
        picture_start=PictureStart.ZERO if is_textbook else PictureStart.NEXT,
        image_id=text_vocab_size,
        video_id=text_vocab_size + 1,
        min_pixels=16 * 16,
        max_pixels=64 * 64,
        min_clip_pixels=16 * 16,
        max_clip_pixels=64 * 64,
    )
