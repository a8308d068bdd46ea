"""Learned positions of a square picture, read by pictures of any shape."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla.models.vision.vit_config import Resampling


def resize_position_table(
    table: Float[Tensor, "positions width"],
    rows: int,
    columns: int | None = None,
    resampling: Resampling = Resampling.BICUBIC,
) -> Float[Tensor, "patches width"]:
    """Returns a square position table resampled to rows x columns in fp32, row after row.

    Args:
        table: one entry for each patch of a square grid.
        rows: patches from top to bottom.
        columns: patches from left to right; None means as many as rows.
        resampling: the kernel.
    """
    old_grid, columns = math.isqrt(table.shape[0]), columns or rows
    if (rows, columns) == (old_grid, old_grid):
        return table
    picture = table.float().view(1, old_grid, old_grid, -1).permute(0, 3, 1, 2)
    mode = "bilinear" if resampling is Resampling.BILINEAR else "bicubic"
    antialias = resampling is not Resampling.BICUBIC_PLAIN
    picture = F.interpolate(picture, size=(rows, columns), mode=mode, antialias=antialias)
    return picture.permute(0, 2, 3, 1).reshape(rows * columns, -1).to(table.dtype)


def gather_positions(
    table: Float[Tensor, "positions width"],
    positions: Int[Tensor, "batch patches 2"],
    resampling: Resampling,
) -> Float[Tensor, "batch patches width"]:
    """Returns the entry of every patch, from a table resampled to the shape of its own picture.

    Args:
        table: one entry for each patch of a square grid.
        positions: (row, column) of every patch, in any order; the largest of each say the picture's shape.
        resampling: the kernel.
    """
    resized: dict[tuple[int, int], Tensor] = {}
    entries = []
    for (rows, columns), places in zip(
        (positions.amax(dim=1) + 1).tolist(), positions, strict=True
    ):
        if (rows, columns) not in resized:
            resized[rows, columns] = resize_position_table(table, rows, columns, resampling)
        entries.append(resized[rows, columns][places[:, 0] * columns + places[:, 1]])
    return torch.stack(entries)
