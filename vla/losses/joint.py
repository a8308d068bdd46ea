"""Several named terms, one number to descend."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vla.errors import ConfigError, unknown_name


def joint_loss(
    terms: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float]
) -> Float[Tensor, ""]:
    """Returns the sum of weight times term.

    Every term needs a weight, so that none is dropped by a misspelt name; weights of terms that are absent from
    this batch are allowed.
    """
    missing = [name for name in terms if name not in weights]
    if missing:
        raise ConfigError(unknown_name("loss term", missing[0], weights))
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
