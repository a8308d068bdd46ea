"""Position of every token, counted so that padding takes none; what turns with it is the business of `rope`."""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla.errors import ConfigError


class PictureStart(Enum):
    """Where the positions of a picture's or clip's tokens begin."""

    NEXT = "next"  # at the next free position, on all three axes: Qwen2-VL
    ZERO = "zero"  # at zero, so that t = 0 all over a still picture: the textbook form


def positions_from_valid(
    valid_mask: Bool[Tensor, "batch tokens"],
) -> Int[Tensor, "batch tokens"]:
    """Returns 0, 1, 2, ... over the valid tokens of each row.

    A padding token repeats the position before it (0 at the start of a row): nobody attends to it, and a
    padded row gives its valid tokens the positions they would have without padding.
    """
    return (valid_mask.cumsum(dim=1) - 1).clamp(min=0)


def grid_positions(
    rows: int, columns: int, device: torch.device | None = None
) -> Int[Tensor, "patches 2"]:
    """Returns (row, column) of every patch of a grid, row after row."""
    axes = (torch.arange(rows, device=device), torch.arange(columns, device=device))
    return torch.cartesian_prod(*axes)


def last_valid(
    x: Float[Tensor, "batch tokens width"], valid_mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch 1 width"]:
    """Returns the last valid token of each row."""
    order = torch.arange(valid_mask.shape[1], device=x.device)
    last = torch.where(valid_mask, order, 0).amax(dim=1)
    return x[torch.arange(x.shape[0], device=x.device), last][:, None]


def mrope_positions(
    is_picture: Bool[Tensor, "batch tokens"],
    grids: Int[Tensor, "pictures 3"],
    valid_mask: Bool[Tensor, "batch tokens"],
    start: PictureStart = PictureStart.NEXT,
) -> Int[Tensor, "batch tokens 3"]:
    """Returns (time, row, column) of every token of prompts that mix words, pictures and clips.

    A word has the next free position on all three axes. A token of a picture has its place (t, r, c) in the grid,
    counted from `start`. What follows goes on at one more than the largest number so far: after p words, a picture of
    1 x 2 x 3 tokens takes p..p+2, and the next word has p + 3. Padding has 0.

    Source: Wang et al. 2024 (Qwen2-VL), section 2.1; transformers 4.57.6, get_rope_index. (5.5.4 gives all steps of a
    clip one time, and 5.23.0 goes on after its longer side, whatever its length.)

    Args:
        is_picture: True where a token of a picture or clip stands.
        grids: time steps, rows and columns of tokens of every picture and clip (a picture has one step), in the order
            of the rows and, within a row, from left to right.
        valid_mask: False for padding, on either side or in between.
        start: where a picture's own positions begin.

    Raises:
        ConfigError: the tokens of a picture are too few, too many, or not next to each other.
    """
    grids = grids.to(valid_mask.device)
    picture, cells = _cells(grids)
    _check_runs(is_picture, valid_mask, grids, picture)
    is_word = valid_mask & ~is_picture
    extents = grids.amax(dim=1)[picture]
    if start is PictureStart.ZERO:
        num_words = is_word.cumsum(dim=1)
        lead = torch.zeros_like(num_words)
        lead[is_picture] = extents - num_words[is_picture]
        words = num_words - 1 + lead.cummax(dim=1).values.clamp(min=0)
        positions = words[..., None].repeat(1, 1, 3)
        positions[is_picture] = cells
    else:
        taken = is_word.long()
        taken[is_picture] = torch.where(cells.any(dim=1), 0, extents)
        free = taken.cumsum(dim=1) - is_word.long()
        positions = free[..., None].repeat(1, 1, 3)
        positions[is_picture] += cells - extents[:, None]
    return positions.masked_fill(~valid_mask[..., None], 0)


def _cells(grids: Tensor) -> tuple[Tensor, Tensor]:
    """Of every token of every grid, one after the other: the number of its grid, and its (t, r, c) there."""
    sizes = grids.prod(dim=1)
    picture = torch.arange(len(grids), device=grids.device).repeat_interleave(sizes)
    first = (sizes.cumsum(dim=0) - sizes)[picture]
    place = torch.arange(len(picture), device=grids.device) - first
    _, rows, columns = grids[picture].unbind(dim=1)
    cells = (place // (rows * columns), place // columns % rows, place % columns)
    return picture, torch.stack(cells, dim=1)


def _check_runs(is_picture: Tensor, valid_mask: Tensor, grids: Tensor, picture: Tensor) -> None:
    """Every picture must lie in one row, with nothing but padding between its tokens."""
    rows, columns = is_picture.nonzero(as_tuple=True)
    if len(rows) != len(picture):
        raise ConfigError(
            f"the pictures have {len(picture)} tokens, the prompts keep {len(rows)} places for them; "
            "write one placeholder token for each image token of every picture"
        )
    order = valid_mask.cumsum(dim=1)[rows, columns]
    is_same = picture[1:] == picture[:-1]
    is_next = (rows[1:] == rows[:-1]) & (order[1:] == order[:-1] + 1)
    if bool((is_same & ~is_next).any()):
        broken = int(picture[1:][is_same & ~is_next][0])
        raise ConfigError(
            f"the places of picture {broken} ({' x '.join(map(str, grids[broken].tolist()))} tokens) are broken up; "
            "keep them together, and the pictures in the order of the prompts"
        )
