"""Actions as numbers that grow out of noise: conditional flow matching.

The suffix is a noisy chunk and the time on its way from noise (0) to actions (1); what is read off the decoder is the
velocity of that way. Sampling reads the prefix once and the suffix at every step: see `vla.models.flow_sampling`.

Source: Lipman et al. 2023, arXiv 2210.02747; Black et al. 2024 (pi0), arXiv 2410.24164, appendix B, whose expert
network of its own for the suffix is left out: prefix and suffix go through the same decoder here. Time runs as in
`vla.control.guidance`; openpi's code runs it backwards.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.models.action_heads.output import ActionOutput

# openpi, src/openpi/models/pi0.py, posemb_sincos(min_period=4e-3, max_period=4.0)
_SHORTEST_PERIOD, _LONGEST_PERIOD = 4e-3, 4.0


class FlowActionHead(nn.Module):
    """One suffix token a step, made of its noisy numbers and the time; one velocity a number."""

    is_suffix_parallel = True

    def __init__(self, width: int, chunk_length: int, action_width: int) -> None:
        super().__init__()
        self.chunk_length, self.action_width = chunk_length, action_width
        self.noisy = nn.Linear(action_width, width)
        self.time = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.velocity = nn.Linear(width, action_width)

    def suffix(
        self, noisy: Float[Tensor, "batch steps dims"], time: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch steps width"]:
        """Returns what the decoder reads after the prefix.

        Args:
            noisy: normalised actions on their way.
            time: 0 where they are noise, 1 where they are actions.
        """
        dtype = self.noisy.weight.dtype
        when = self.time(sinusoids(time, self.time.in_features).to(dtype))
        return self.mix(nn.functional.silu(self.noisy(noisy.to(dtype)) + when[:, None]))

    def read(self, hidden: Float[Tensor, "batch steps width"]) -> ActionOutput:
        """Returns what the hidden states of the suffix say: `velocity`."""
        return ActionOutput(velocity=self.velocity(hidden))


def sinusoids(time: Float[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """Returns sines, then cosines, of times in [0, 1], with periods from 0.004 to 4 evenly spread in the logarithm."""
    share = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float32, device=time.device)
    period = _SHORTEST_PERIOD * (_LONGEST_PERIOD / _SHORTEST_PERIOD) ** share
    angle = 2 * math.pi * time.float()[:, None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=1)
