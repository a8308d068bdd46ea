"""Flows that are steered so that a chunk begins with settled actions: real-time chunking.

The steering itself is `vla.control.guidance.guided_chunk`, which knows no torch and steers one chunk at a time; it is
passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vla.models.flow_sampling import DEFAULT_STEPS, Velocity


@runtime_checkable
class Guide(Protocol):
    """`vla.control.guidance.guided_chunk`."""

    def __call__(
        self,
        velocity: Callable[[NDArray[np.float64], float], tuple],
        noise: NDArray[np.float64],
        settled: NDArray[np.float64],
        *,
        num_committed: int,
        num_steps: int,
    ) -> NDArray[np.float64]: ...


def sample_guided(
    velocity: Velocity,
    noise: Float[Tensor, "1 steps dims"],
    settled: Float[Tensor, "settled dims"],
    guide: Guide,
    num_steps: int = DEFAULT_STEPS,
) -> Float[Tensor, "1 steps dims"]:
    """Returns a chunk that begins with the settled actions, all of them committed, and goes on from there.

    Args:
        velocity: of one observation.
        noise: where it starts.
        settled: normalised to [-1, 1].
        guide: `vla.control.guidance.guided_chunk`.
        num_steps: of Euler's method.
    """

    def of_one(chunk: Tensor, time: float) -> Tensor:
        return velocity(chunk[None], chunk.new_full((1,), time))[0]

    chunk = guide(
        torch_velocity(of_one, noise.device),
        noise[0].double().cpu().numpy(),
        settled.double().cpu().numpy(),
        num_committed=len(settled),
        num_steps=num_steps,
    )
    return torch.from_numpy(chunk).to(noise)[None]


def torch_velocity(
    network: Callable[[Tensor, float], Float[Tensor, "steps width"]],
    device: torch.device | None = None,
) -> Callable[
    [NDArray[np.float64], float],
    tuple[NDArray[np.float64], Callable[[NDArray[np.float64]], NDArray[np.float64]]],
]:
    """Returns `network`, which maps a noisy chunk and a time to a velocity, with its vector-Jacobian product."""

    def velocity(
        chunk: NDArray[np.float64], time: float
    ) -> tuple[NDArray[np.float64], Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
        with torch.enable_grad():
            noisy = torch.tensor(chunk, dtype=torch.float32, device=device, requires_grad=True)
            speed = network(noisy, time)

        def pull_back(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            cotangent = torch.tensor(vector, dtype=speed.dtype, device=speed.device)
            (gradient,) = torch.autograd.grad(speed, noisy, cotangent)
            return gradient.double().cpu().numpy()

        return speed.detach().double().cpu().numpy(), pull_back

    return velocity
