"""A torch flow as the callback that `vla.control.guidance` asks for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


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
