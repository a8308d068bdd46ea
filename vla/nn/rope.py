"""Rotary position embedding in half-split order (Su et al. 2021; channel i is paired with i + head_dim / 2)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

Rotation = tuple[Tensor, Tensor]  # cosine and sine, each (batch, tokens, 1, head_dim / 2)


def rope_rotation(
    positions: Int[Tensor, "batch tokens"], head_dim: int, theta: float
) -> Rotation:
    """Returns cosine and sine of position times theta^(-2 i / head_dim), in fp32: bf16 cannot count past 256."""
    channel = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    frequency = theta ** (-channel / head_dim)
    angle = positions.to(torch.float32)[:, :, None, None] * frequency
    return angle.cos(), angle.sin()


def apply_rope(
    x_BTHD: Float[Tensor, "batch tokens heads head_dim"], rotation: Rotation
) -> Float[Tensor, "batch tokens heads head_dim"]:
    """Returns `x` with each channel pair turned by the angle of its token's position."""
    cosine, sine = (part.to(x_BTHD.dtype) for part in rotation)
    first, second = x_BTHD.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
