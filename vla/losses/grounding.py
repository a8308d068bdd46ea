"""Auxiliary targets: where the named object is, in each picture and relative to the tool.

A label is (batch, 7): target_from_tool x, y, z in metres, then column u and row v of the object in [0, 1] for
each view, row 0 at the top, with -1 where the view does not show it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

DECIMETRES_PER_METRE = 10.0


def grounding_losses(
    pointing_logits: Float[Tensor, "batch views patches"],
    target_from_tool_dm: Float[Tensor, "batch 3"],
    grounding: Float[Tensor, "batch labels"],
) -> dict[str, Float[Tensor, ""]]:
    """Returns the terms `pointing` (nats, over views that show the object) and `offset` (smooth L1, decimetres)."""
    num_views = pointing_logits.shape[1]
    pixels = grounding[:, 3:].view(-1, num_views, 2)
    is_visible = (pixels >= 0).all(dim=-1)
    patches = patch_of_pixel(pixels.clamp(min=0), pointing_logits.shape[-1])
    nats = F.cross_entropy(
        pointing_logits.float().flatten(0, 1), patches.flatten(), reduction="none"
    )
    weights = is_visible.flatten().to(nats.dtype)
    offset = F.smooth_l1_loss(target_from_tool_dm.float(), grounding[:, :3] * DECIMETRES_PER_METRE)
    return {"pointing": (nats * weights).sum() / weights.sum().clamp(min=1.0), "offset": offset}


def patch_of_pixel(pixels: Float[Tensor, "*batch 2"], num_patches: int) -> torch.Tensor:
    """Returns the index of the image token, row by row, whose square holds the point (u, v) in [0, 1]^2."""
    grid = math.isqrt(num_patches)
    column, row = (pixels * grid).long().clamp(max=grid - 1).unbind(dim=-1)
    return row * grid + column
