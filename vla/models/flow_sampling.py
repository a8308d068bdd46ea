"""Chunks out of noise: the prefix is read once, the suffix at every step of Euler's method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vla.errors import ConfigError
from vla.models.action_heads import FlowActionHead
from vla.models.decoder import Decoder
from vla.models.sequence import Prefix, continued, read

# Given noisy chunks and one time each, returns velocities.
Velocity = Callable[[Tensor, Tensor], Tensor]
DEFAULT_STEPS = 10  # pi0's


def cached_velocity(
    head: FlowActionHead,
    decoder: Decoder,
    prefix: Prefix,
    *,
    is_parallel: bool = True,
    filler_id: int = 0,
) -> Velocity:
    """Returns the velocity after `prefix`, which is read here, once; only the suffix is read at every call.

    Args:
        head: with weights of the same training as the decoder's.
        decoder: of the backbone that made the prefix; in eval mode.
        prefix: of every row.
        is_parallel: steps see each other.
        filler_id: stands for steps in per-layer embeddings.
    """
    embeddings = prefix.embeddings
    with torch.no_grad():  # not inference_mode: guidance sends gradients past these keys and values
        cache = decoder.make_cache(
            embeddings.shape[0], embeddings.shape[1], embeddings.dtype, embeddings.device
        )
        read(decoder, prefix, cache)

    def velocity(noisy: Tensor, time: Tensor) -> Tensor:
        suffix = head.suffix(noisy, time)
        whole = continued(prefix, suffix, is_parallel=is_parallel, filler_id=filler_id)
        found = head.read(read(decoder, whole, cache.peek())).velocity
        assert found is not None
        return found.float()

    return velocity


def sample(
    velocity: Velocity, noise: Float[Tensor, "batch steps dims"], num_steps: int = DEFAULT_STEPS
) -> Float[Tensor, "batch steps dims"]:
    """Returns what each draw of noise becomes: Euler's method from time 0 to 1; raises ConfigError for no steps."""
    if num_steps < 1:
        raise ConfigError(f"num_steps = {num_steps}; a flow takes at least 1, usually 10")
    chunk = noise
    for step in range(num_steps):
        time = torch.full_like(noise[:, 0, 0], step / num_steps)
        chunk = chunk + velocity(chunk, time) / num_steps
    return chunk
