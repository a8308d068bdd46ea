"""From uint8 pictures to what each family's vision tower reads: resized, normalised, cut into patches.

Every function takes either a batch (B, 3, rows, columns) or a list of pictures (3, rows, columns) of any sizes,
RGB in uint8. Pictures of equal size are handled together.

Patches of native-resolution towers are flattened as (frames, rows, columns, channels), channels last. That is
Gemma 4's and SigLIP 2's own order; Qwen2-VL's reference has (channels, frames, rows, columns), which its key map
brings into ours.

Equal, to the last bit on the CPU, to the image processors of transformers 5.5.4 that are backed by torchvision
(its default; those named ...Pil differ by a level or two).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vla.errors import ConfigError
from vla.models.vision.pictures import (
    Pictures,
    by_size,
    check_picture,
    in_order,
    normalised,
    resize,
)
from vla.models.vision.presets import IMAGENET_MEAN, IMAGENET_STD
from vla.models.vision.resize_rules import (
    QWEN2_VL_IMAGE_PIXELS,
    QWEN2_VL_VIDEO_PIXELS,
    gemma4_size,
    qwen2_vl_size,
    siglip2_size,
)

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # openai/CLIP, clip.py, _transform
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)  # SigLIP: [0, 1] becomes [-1, 1]


@dataclass(frozen=True, kw_only=True)
class PaddedPatches:
    """Patches of several pictures, each row filled up with zeros to one length (SigLIP 2, Gemma 4).

    Attributes:
        pixels: patches of every picture in raster order, flattened (rows, columns, channels).
        valid: True for real patches.
        positions: (x, y) of every patch in its own grid; (-1, -1) for filling.
        grids: rows and columns of patches of every picture.
        num_tokens: image tokens that the language model sees of every picture.
    """

    pixels: Float[Tensor, "batch patches values"]
    valid: Bool[Tensor, "batch patches"]
    positions: Int[Tensor, "batch patches 2"]
    grids: Int[Tensor, "batch 2"]
    num_tokens: list[int]


@dataclass(frozen=True, kw_only=True)
class PackedPatches:
    """Patches of several pictures or clips, one after the other without filling (Qwen2-VL).

    Attributes:
        pixels: patches in the order of their 2 x 2 blocks, flattened (frames, rows, columns, channels).
        grids: frames, rows and columns of patches of every picture or clip; a frame here is two of a clip.
        num_tokens: image tokens that the language model sees of every picture or clip.
    """

    pixels: Float[Tensor, "patches values"]
    grids: Int[Tensor, "pictures 3"]
    num_tokens: list[int]


def openvla_pictures(
    pictures: Pictures, image_size: int = 224
) -> UInt8[Tensor, "batch 3 rows columns"]:
    """Returns pictures stretched to a square ("resize-naive"); `FusedTowers` normalises them itself.

    The reference resizes with Pillow, whose rounding differs: by one level when reducing, two when enlarging.
    Source: openvla/openvla c8f03f4, prismatic/models/backbones/vision/dinosiglip_vit.py.
    """
    return _squares(pictures, image_size)


def openvla_pixels(
    pictures: Pictures, image_size: int = 224
) -> Float[Tensor, "batch 6 rows columns"]:
    """Returns OpenVLA's `pixel_values`: the picture normalised for DINOv2, then for SigLIP, on the channel axis."""
    squares = _squares(pictures, image_size).movedim(1, -1)
    both = [normalised(squares, IMAGENET_MEAN, IMAGENET_STD), normalised(squares, HALF, HALF)]
    return torch.cat(both, dim=-1).movedim(-1, 1)


def siglip_pixels(
    pictures: Pictures, image_size: int = 224
) -> Float[Tensor, "batch 3 rows columns"]:
    """Returns squares in [-1, 1], as SigLIP and PaliGemma (224, 448 or 896 px) read them."""
    squares = _squares(pictures, image_size).movedim(1, -1)
    return normalised(squares, HALF, HALF).movedim(-1, 1)


def siglip2_patches(
    pictures: Pictures, *, patch_size: int = 16, max_patches: int = 256
) -> PaddedPatches:
    """Returns SigLIP 2's (NaFlex) patches: the picture's own ratio, at most `max_patches`, bilinear."""

    def prepare(batch: Tensor) -> Tensor:
        size = siglip2_size(*batch.shape[-2:], patch_size=patch_size, max_patches=max_patches)
        return resize(batch, size, mode="bilinear")

    grids, rows = _patches_of_each(pictures, prepare, patch_size)
    rows = [_normalised_patches(row, HALF, HALF) for row in rows]
    return _padded(rows, grids, max_patches, patches_per_token=1)


def gemma4_patches(
    pictures: Pictures, *, token_budget: int = 280, patch_size: int = 16, pool_size: int = 3
) -> PaddedPatches:
    """Returns what Gemma 4's vision tower reads: patches of 16 px in [0, 1], 3 x 3 of which become one token.

    Rows are filled up to token_budget * pool_size^2 patches.
    """
    grids, rows = _gemma4(pictures, token_budget, patch_size * pool_size, patch_size)
    return _padded(rows, grids, token_budget * pool_size**2, patches_per_token=pool_size**2)


def gemma4_unified_patches(
    pictures: Pictures, *, token_budget: int = 280, token_size: int = 48
) -> PaddedPatches:
    """Returns what the encoder-free Gemma 4 reads: one patch of 48 px in [0, 1] a token.

    Source: transformers 5.23.0, image_processing_gemma4_unified.py, which cuts patches of 16 px and joins them.
    """
    grids, rows = _gemma4(pictures, token_budget, token_size, token_size)
    return _padded(rows, grids, token_budget, patches_per_token=1)


def qwen2_vl_patches(
    pictures: Pictures,
    *,
    min_pixels: int = QWEN2_VL_IMAGE_PIXELS[0],
    max_pixels: int = QWEN2_VL_IMAGE_PIXELS[1],
    patch_size: int = 14,
    merge_size: int = 2,
    temporal_patch_size: int = 2,
) -> PackedPatches:
    """Returns Qwen2-VL's patches of still pictures; each picture stands for all frames of its temporal patch."""
    groups = [(indices, batch[:, None]) for indices, batch in by_size(pictures)]
    return _qwen2_vl(groups, min_pixels, max_pixels, patch_size, merge_size, temporal_patch_size)


def qwen2_vl_clip_patches(
    clips: Sequence[Tensor],
    *,
    min_pixels: int = QWEN2_VL_VIDEO_PIXELS[0],
    max_pixels: int = QWEN2_VL_VIDEO_PIXELS[1],
    patch_size: int = 14,
    merge_size: int = 2,
    temporal_patch_size: int = 2,
) -> PackedPatches:
    """Returns Qwen2-VL's patches of video clips (frames, 3, rows, columns), two frames a patch.

    The last frame is repeated where the number of frames does not divide. Which frames of a film make the
    clip is the caller's choice.
    """
    if not clips:
        raise ConfigError("no pictures were given; expected at least one clip")
    groups: list[tuple[list[int], Tensor]] = []
    for index, clip in enumerate(clips):
        check_picture(clip, num_axes=4, expected="(frames, 3, rows, columns)")
        groups.append(([index], clip[None]))
    return _qwen2_vl(groups, min_pixels, max_pixels, patch_size, merge_size, temporal_patch_size)


def _squares(pictures: Pictures, image_size: int) -> Tensor:
    groups = by_size(pictures)
    squares = [resize(batch, (image_size, image_size)) for _, batch in groups]
    return in_order([indices for indices, _ in groups], squares)


def _gemma4(
    pictures: Pictures, token_budget: int, token_size: int, patch_size: int
) -> tuple[list[tuple[int, int]], list[Tensor]]:
    def prepare(batch: Tensor) -> Tensor:
        rows, columns = batch.shape[-2:]
        return resize(
            batch, gemma4_size(rows, columns, token_budget=token_budget, token_size=token_size)
        )

    grids, rows = _patches_of_each(pictures, prepare, patch_size)
    return grids, [row * (1.0 / 255.0) for row in rows]


def _patches_of_each(
    pictures: Pictures, prepare: Callable[[Tensor], Tensor], patch_size: int
) -> tuple[list[tuple[int, int]], list[Tensor]]:
    """Grid and uint8 patches (patches, values) of every picture, after `prepare` brought it to its size."""
    found: dict[int, tuple[tuple[int, int], Tensor]] = {}
    for indices, batch in by_size(pictures):
        x = prepare(batch)
        grid = (x.shape[-2] // patch_size, x.shape[-1] // patch_size)
        x = x.unflatten(2, (grid[0], patch_size)).unflatten(4, (grid[1], patch_size))
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(len(indices), grid[0] * grid[1], -1)
        found.update(zip(indices, ((grid, patches) for patches in x), strict=True))
    ordered = [found[index] for index in range(len(found))]
    return [grid for grid, _ in ordered], [patches for _, patches in ordered]


def _normalised_patches(patches: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return normalised(patches.unflatten(-1, (-1, 3)), mean, std).flatten(-2)


def _padded(
    rows: list[Tensor], grids: list[tuple[int, int]], length: int, *, patches_per_token: int
) -> PaddedPatches:
    device = rows[0].device
    pixels = torch.zeros(len(rows), length, rows[0].shape[-1], device=device)
    positions = torch.full((len(rows), length, 2), -1, device=device)
    for index, (row, (_, num_columns)) in enumerate(zip(rows, grids, strict=True)):
        pixels[index, : len(row)] = row
        raster = torch.arange(len(row), device=device)
        positions[index, : len(row), 0] = raster % num_columns
        positions[index, : len(row), 1] = raster // num_columns
    return PaddedPatches(
        pixels=pixels,
        valid=positions[..., 0] >= 0,
        positions=positions,
        grids=torch.tensor(grids, device=device),
        num_tokens=[len(row) // patches_per_token for row in rows],
    )


def _qwen2_vl(
    groups: list[tuple[list[int], Tensor]],
    min_pixels: int,
    max_pixels: int,
    patch_size: int,
    merge_size: int,
    temporal_patch_size: int,
) -> PackedPatches:
    """Groups hold the pictures' indices and (pictures, frames, 3, rows, columns), all of one size."""
    found: dict[int, tuple[list[int], Tensor]] = {}
    factor = patch_size * merge_size
    for indices, clips in groups:
        rows, columns = clips.shape[-2:]
        size = qwen2_vl_size(
            rows, columns, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels
        )
        x = resize(clips, size)
        num_missing = -x.shape[1] % temporal_patch_size
        x = torch.cat([x, x[:, -1:].expand(-1, num_missing, -1, -1, -1)], dim=1)
        grid = [x.shape[1] // temporal_patch_size, size[0] // patch_size, size[1] // patch_size]
        # (N, T f, C, R m p, K m q) -> (N, T, R, K, m, m, f, p, q, C): blocks of m x m patches in raster order
        x = x.unflatten(4, (-1, merge_size, patch_size)).unflatten(3, (-1, merge_size, patch_size))
        x = x.unflatten(1, (-1, temporal_patch_size)).permute(0, 1, 4, 7, 5, 8, 2, 6, 9, 3)
        patches = normalised(
            x.reshape(len(indices), grid[0] * grid[1] * grid[2], -1, 3), CLIP_MEAN, CLIP_STD
        )
        found.update(zip(indices, ((grid, item) for item in patches.flatten(-2)), strict=True))
    ordered = [found[index] for index in range(len(found))]
    pixels = torch.cat([patches for _, patches in ordered])
    grids = torch.tensor([grid for grid, _ in ordered], device=pixels.device)
    return PackedPatches(
        pixels=pixels, grids=grids, num_tokens=(grids.prod(dim=1) // merge_size**2).tolist()
    )
