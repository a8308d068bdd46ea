"""Real-time chunking for continuous heads: a flow is steered so that its chunk begins with what is being carried out.

Source: Black, Galliker, Levine, arXiv 2506.07339, section 4 and algorithm 1. A flow turns noise (time 0) into a chunk
(time 1) by following a velocity. At every step the velocity says where the chunk will end up; the difference from the
actions already settled, weighted by `soft_mask`, is pulled back through the network (a vector-Jacobian product) and
added.

No torch here: the network is a callback that returns its velocity and the pull-back of that velocity.

Three mistakes of earlier implementations are ruled out by how this is put together. The latency is foreseen from the
last answers, not from all since the warm-up (`LatencyTracker`). Past actions are counted as they begin, not taken from
that forecast (`Record.since`). And where fewer actions are settled than the chunk is long, the rest has no weight; it
is never compared with zeros, which would pull the chunk to the data's mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vla.control.realtime_chunking import soft_mask

FloatRows = NDArray[np.float64]
PullBack = Callable[[FloatRows], FloatRows]
# Given a noisy chunk (steps, width) and the time in [0, 1), returns its velocity, of the same shape, and the function
# that turns v into v times the velocity's Jacobian.
Velocity = Callable[[FloatRows, float], tuple[FloatRows, PullBack]]

DEFAULT_MAX_WEIGHT = (
    5.0  # beta in the paper, section 4.2: with few denoising steps larger ones diverge
)


def guided_chunk(
    velocity: Velocity,
    noise: FloatRows,
    settled: FloatRows,
    *,
    num_committed: int,
    num_steps: int = 10,
    max_weight: float = DEFAULT_MAX_WEIGHT,
) -> FloatRows:
    """Returns a chunk (steps, width) that begins with the settled actions and goes on from there.

    Args:
        velocity: the network, for one observation.
        noise: (steps, width) a draw from the standard normal distribution.
        settled: (known, width) the old chunk from this observation on, normalised as the network's chunks are. Fewer
            rows than steps are expected; none gives the flow its freedom.
        num_committed: the first so many of them will have begun when this chunk is there: full weight.
        num_steps: of Euler's method.
        max_weight: limit of the guidance.
    """
    known = min(len(settled), len(noise))
    weights = np.zeros((len(noise), 1))
    weights[:known, 0] = soft_mask(min(num_committed, known), known)
    target = np.zeros_like(noise)
    target[:known] = settled[:known]
    chunk = np.array(noise, dtype=np.float64)
    for step in range(num_steps):
        time = step / num_steps
        speed, pull_back = velocity(chunk, time)
        if known:
            error = weights * (target - (chunk + (1 - time) * speed))
            correction = error + (1 - time) * pull_back(error)
            speed = speed + _guidance_weight(time, max_weight) * correction
        chunk = chunk + speed / num_steps
    return chunk


def _guidance_weight(time: float, limit: float) -> float:
    """Returns (1 - t) / (t r^2) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2), limited; equation 2 and 4 of the paper."""
    if time == 0:
        return limit
    left = 1 - time
    return min(limit, (time**2 + left**2) / (time * left))
