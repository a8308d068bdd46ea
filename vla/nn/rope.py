"""Rotary position embedding (Su et al. 2021): pairs of channels turned by an angle that grows with the position.

A head of D channels has D / 2 pairs. A config says which axis of the position turns each pair, and how fast:

    1-D          every pair by the one position: Llama, Gemma, Qwen2
    2-D          half the pairs by the row, half by the column, each half with its own falling frequencies (`restarts`)
    M-RoPE       sections of pairs by time, row and column, sharing one row of falling frequencies (Qwen2-VL)

Where the partner of a channel lies is a matter of layout: half a head away (channel i with i + D / 2), or inside the
channels of the same axis (`is_apart`, Gemma 4's tower).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Which position turns which pair of channels, and by how much."""

    theta: float = 10000.0  # pair i turns by position * theta^(-2 i / head_dim)
    sections: tuple[int, ...] | None = None  # pairs of each axis; None: one axis has all
    restarts: bool = False  # each axis counts its pairs from 0, over its own share of the head
    is_apart: bool = False  # partners lie within the axis's own channels
    share: float = 1.0  # share of the pairs that turn; the others stand still ("proportional")
    factor: float = 1.0  # positions are divided by it (linear scaling to longer contexts)

    def __post_init__(self) -> None:
        if self.sections is not None:  # lists come from JSON
            object.__setattr__(self, "sections", tuple(self.sections))
            if self.is_apart and len(set(self.sections)) > 1:
                raise ConfigError(
                    f"rope sections {list(self.sections)} differ; sections that lie apart must be of one size"
                )


class Rotation(NamedTuple):
    """What `apply_rope` needs: cosine and signed sine, (batch, tokens, 1, head_dim), and the number of apart groups."""

    cosine: Tensor
    signed_sine: Tensor
    num_groups: int = 1


def rope_rotation(
    positions: Int[Tensor, "batch tokens *axes"], head_dim: int, config: RopeConfig
) -> Rotation:
    """Returns the rotation of every token, in fp32: bf16 cannot count past 256.

    Args:
        positions: one integer a token, or one for each axis of `config.sections`.
        head_dim: channels of a head.
        config: which axis turns which pair.
    """
    frequency = _frequencies(head_dim, config, positions.device)
    if positions.dim() == 2:
        angle = positions.to(torch.float32)[:, :, None] * frequency
    else:
        angle = positions.to(torch.float32)[:, :, _axes(head_dim, config)] * frequency
    cosine, sine = angle.cos()[:, :, None], angle.sin()[:, :, None]
    if not config.is_apart:
        return Rotation(torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1))
    sections = list(config.sections or [head_dim // 2])
    pieces = list(zip(cosine.split(sections, dim=-1), sine.split(sections, dim=-1), strict=True))
    return Rotation(
        torch.cat([c for cosine, _ in pieces for c in (cosine, cosine)], dim=-1),
        torch.cat([s for _, sine in pieces for s in (-sine, sine)], dim=-1),
        len(sections),
    )


def apply_rope(
    x_BTHD: Float[Tensor, "batch tokens heads head_dim"], rotation: Rotation
) -> Float[Tensor, "batch tokens heads head_dim"]:
    """Returns `x` with each channel pair turned by the angle of its token's position."""
    cosine, signed_sine, num_groups = rotation
    if num_groups == 1:
        partner = x_BTHD.roll(x_BTHD.shape[-1] // 2, dims=-1)
    else:
        groups = x_BTHD.unflatten(-1, (num_groups, -1))
        partner = groups.roll(groups.shape[-1] // 2, dims=-1).flatten(-2)
    return x_BTHD * cosine.to(x_BTHD.dtype) + partner * signed_sine.to(x_BTHD.dtype)


def _frequencies(head_dim: int, config: RopeConfig, device: torch.device) -> Tensor:
    """By how much each pair turns from one position to the next, in radians."""
    sections = config.sections if config.restarts and config.sections else (head_dim // 2,)
    frequency = torch.cat(
        [
            1.0 / config.theta ** (torch.arange(size, dtype=torch.float32, device=device) / size)
            for size in sections
        ]
    )
    if config.share < 1.0:
        frequency[int(config.share * head_dim // 2) :] = 0.0
    return frequency / config.factor


def _axes(head_dim: int, config: RopeConfig) -> list[int]:
    """The axis of the position that turns each pair."""
    sections = config.sections or (head_dim // 2,)
    if sum(sections) != head_dim // 2:
        raise ConfigError(
            f"rope sections {list(sections)} have {sum(sections)} pairs; a head of {head_dim} channels has "
            f"{head_dim // 2}; change the sections"
        )
    return [axis for axis, size in enumerate(sections) for _ in range(size)]
