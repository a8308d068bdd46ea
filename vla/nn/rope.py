"""Rotary position embedding in half-split order (Su et al. 2021; channel i is paired with i + head_dim / 2)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

Rotation = tuple[Tensor, Tensor]  # cosine and signed sine, each (batch, tokens, 1, head_dim)


def rope_rotation(positions: Int[Tensor, "batch tokens"], head_dim: int, theta: float) -> Rotation:
    """Returns cosine and sine of position times theta^(-2 i / head_dim), in fp32: bf16 cannot count past 256.

    Both are laid out for the whole head; the sine of the first half carries the minus sign of the rotation.
    """
    channel = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    frequency = theta ** (-channel / head_dim)
    angle = positions.to(torch.float32)[:, :, None, None] * frequency
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def apply_rope(
    x_BTHD: Float[Tensor, "batch tokens heads head_dim"], rotation: Rotation
) -> Float[Tensor, "batch tokens heads head_dim"]:
    """Returns `x` with each channel pair turned by the angle of its token's position."""
    cosine, signed_sine = rotation
    partner = x_BTHD.roll(x_BTHD.shape[-1] // 2, dims=-1)
    return x_BTHD * cosine.to(x_BTHD.dtype) + partner * signed_sine.to(x_BTHD.dtype)
