"""Losses of actions that are numbers: the absolute error, and the velocity that carries noise to actions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vla.losses.flow_times import FlowTimes

# pi0 (Black et al. 2024), appendix B, and openpi, src/openpi/models/pi0.py: Beta(1.5, 1) of 1 - time / 0.999
_BETA_SHAPE, _LATEST = 1.5, 0.999


class FlowDraw(NamedTuple):
    """A chunk on its way.

    Attributes:
        noisy: (batch, steps, dims) at `time`.
        time: (batch,) in [0, 1].
        velocity: (batch, steps, dims) actions minus noise, what is to be predicted.
    """

    noisy: Tensor
    time: Tensor
    velocity: Tensor


def l1_loss(
    actions: Float[Tensor, "batch steps dims"],
    true_actions: Float[Tensor, "batch steps dims"],
    action_valid: Bool[Tensor, "batch steps"],
) -> Float[Tensor, ""]:
    """Returns the mean absolute error over the numbers of valid steps; both normalised to [-1, 1]."""
    return _mean_over_steps((actions.float() - true_actions).abs(), action_valid)


def flow_matching_loss(
    velocity: Float[Tensor, "batch steps dims"],
    true_velocity: Float[Tensor, "batch steps dims"],
    action_valid: Bool[Tensor, "batch steps"],
) -> Float[Tensor, ""]:
    """Returns the mean squared error of the velocity over the numbers of valid steps (Lipman et al. 2023, eq. 23)."""
    return _mean_over_steps((velocity.float() - true_velocity).square(), action_valid)


def draw_flow(
    actions: Float[Tensor, "batch steps dims"],
    times: FlowTimes = FlowTimes.BETA,
    generator: torch.Generator | None = None,
) -> FlowDraw:
    """Returns each chunk somewhere on the straight way from a draw of normal noise to it.

    Args:
        actions: normalised to [-1, 1].
        times: distribution of where.
        generator: on the device of `actions`; None takes torch's own.
    """
    device = actions.device
    noise = torch.randn(actions.shape, generator=generator, device=device)
    time = torch.rand(len(actions), generator=generator, device=device)
    if times is FlowTimes.BETA:  # by the inverse of its distribution function, b ** 1.5
        time = _LATEST * (1.0 - time ** (1.0 / _BETA_SHAPE))
    share = time[:, None, None]
    noisy = share * actions + (1.0 - share) * noise
    return FlowDraw(noisy, time, actions - noise)


def _mean_over_steps(errors: Tensor, action_valid: Tensor) -> Tensor:
    counts = action_valid[..., None].to(errors.dtype)
    return (errors * counts).sum() / (counts.sum() * errors.shape[-1]).clamp(min=1.0)
