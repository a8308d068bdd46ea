"""Raw pictures: checked, grouped by size, resized in uint8 and normalised.

torchvision, the reference of every family but OpenVLA, resizes in uint8 on the CPU, so this does. Other devices
have no uint8 kernel; there both passes are computed in float32 and rounded, which is at most two levels off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.vision.resize_rules import check_picture_size

# One batch (B, 3, rows, columns), or pictures (3, rows, columns) of any sizes; checked by by_size.
Pictures = Tensor | Sequence[Tensor]
# What each row of a batch shows: (B, pictures, 3, rows, columns), or for each row pictures (3, rows, columns) and clips
# (frames, 3, rows, columns) of any sizes.
PictureRows = Tensor | Sequence[Sequence[Tensor]]


def resize(
    pictures: UInt8[Tensor, "*batch 3 rows columns"],
    size: tuple[int, int],
    *,
    mode: str = "bicubic",
) -> UInt8[Tensor, "*batch 3 new_rows new_columns"]:
    """Returns pictures of `size` (height, width), antialiased and in uint8, as torchvision gives them on the CPU.

    Args:
        pictures: RGB pictures of one size.
        size: height and width wanted.
        mode: "bicubic" or "bilinear".
    """
    if pictures.shape[-2:] == size:
        return pictures
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    if flat.device.type == "cpu":
        flat = F.interpolate(flat, size=size, mode=mode, antialias=True)
    else:
        flat = _resize_in_float(flat, size, mode)
    return flat.view(*pictures.shape[:-2], *size)


def normalised(
    pictures: UInt8[Tensor, "*axes columns 3"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "*axes columns 3"]:
    """Returns (value / 255 - mean) / std of channels-last pictures, rounded as torchvision's fused form rounds."""
    flat = pictures.flatten(
        -2
    )  # long rows: broadcasting over three values costs half the time again
    mean_255 = (torch.tensor(mean, device=flat.device) * 255.0).repeat(flat.shape[-1] // 3)
    std_255 = (torch.tensor(std, device=flat.device) * 255.0).repeat(flat.shape[-1] // 3)
    return torch.sub(flat, mean_255).div_(std_255).unflatten(-1, (-1, 3))


def all_pictures(rows: PictureRows) -> Pictures:
    """Returns what the rows show, one after the other; each frame of a clip counts as a picture."""
    if isinstance(rows, Tensor):
        return rows.flatten(0, 1)
    return [
        frame
        for row in rows
        for shown in row
        for frame in (shown.unbind() if shown.ndim == 4 else [shown])
    ]


def num_pictures(rows: PictureRows) -> list[int]:
    """Returns how many pictures each row shows; each frame of a clip counts as one."""
    if isinstance(rows, Tensor):
        return [rows.shape[1]] * rows.shape[0]
    return [sum(len(shown) if shown.ndim == 4 else 1 for shown in row) for row in rows]


def by_size(pictures: Pictures) -> list[tuple[list[int], Tensor]]:
    """Returns pictures of equal size stacked, each stack with its pictures' indices in the input.

    Raises:
        ConfigError: there are no pictures, or one of them is none; see `check_picture`.
    """
    if isinstance(pictures, Tensor):
        check_picture(pictures, num_axes=4, expected="(batch, 3, rows, columns)")
        return [(list(range(len(pictures))), pictures)]
    if not pictures:
        raise ConfigError("no pictures were given; expected at least one")
    indices_of: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        check_picture(picture, num_axes=3, expected="(3, rows, columns)")
        indices_of.setdefault(tuple(picture.shape), []).append(index)
    return [
        (indices, torch.stack([pictures[i] for i in indices])) for indices in indices_of.values()
    ]


def in_order(groups: list[list[int]], batches: list[Tensor]) -> Tensor:
    """Returns the stacks of `by_size`, made equal in size, as one batch in the order of the input."""
    if len(batches) == 1:
        return batches[0]
    order = torch.tensor([index for indices in groups for index in indices])
    return torch.cat(batches)[order.argsort().to(batches[0].device)]


def check_picture(picture: Tensor, *, num_axes: int, expected: str) -> None:
    """Returns nothing; `picture` can be prepared.

    Args:
        picture: a picture, a clip or a batch.
        num_axes: how many axes it must have.
        expected: its shape in words.

    Raises:
        ConfigError: another type than uint8, another shape, no pixels, or a side 200 times the other.
    """
    if picture.dtype != torch.uint8:
        raise ConfigError(
            f"pictures must be uint8 values 0..255; got {picture.dtype}: "
            "hand over the picture as it left the camera, neither scaled nor normalised"
        )
    if picture.ndim != num_axes or picture.shape[-3] != 3:
        raise ConfigError(
            f"a picture has shape {tuple(picture.shape)}; expected {expected} with three colour channels before "
            "rows and columns; repeat a grey channel three times, drop an alpha channel"
        )
    if picture.shape[0] == 0:
        raise ConfigError(
            f"a batch of shape {tuple(picture.shape)} holds no pictures; expected at least one"
        )
    check_picture_size(picture.shape[-2], picture.shape[-1])


def _resize_in_float(pictures: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Columns first, then rows, rounded after each: like the uint8 kernel, this cuts overshoots off twice.

    In one pass, sharp edges that are enlarged come out up to twenty levels different.
    """
    for step in ((pictures.shape[-2], size[1]), size):
        x = F.interpolate(pictures.to(torch.float32), size=step, mode=mode, antialias=True)
        pictures = x.round_().clamp_(0, 255).to(torch.uint8)
    return pictures
