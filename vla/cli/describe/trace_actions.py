"""What comes out of a model, as motion: ids, bins, numbers in [-1, 1], actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla.data.stats import ActionStatistics
from vla.tokenizers.action_bins import NUM_BINS, ActionBins, ActionVocabulary
from vla.tokenizers.fast import FastTokenizer
from vla.types import ActionSpec


@dataclass(frozen=True, kw_only=True)
class ActionMeaning:
    """From action tokens to motion.

    Attributes:
        spec: names, units and limits.
        vocabulary: which ids stand for which bins.
        statistics: what -1 and 1 mean; None: the limits.
        fast: codes chunks, for a model that decodes with it.
        end_id: what the model writes after its last action token.
    """

    spec: ActionSpec
    vocabulary: ActionVocabulary
    statistics: ActionStatistics | None = None
    fast: FastTokenizer | None = None
    end_id: int | None = None

    @property
    def width(self) -> int:
        """Numbers of an action."""
        return self.spec.width

    def ids(self, step: int) -> Tensor:
        """Returns the ids of bins 0..255 in one step of generation."""
        dim = step % self.width
        bins = np.zeros((NUM_BINS, self.width), np.int64)
        bins[:, dim] = np.arange(NUM_BINS)
        return torch.from_numpy(self.vocabulary.ids(bins)[:, dim])

    def tokens(self, bins: Tensor) -> Tensor:
        """Returns the ids of bins (..., width)."""
        return torch.from_numpy(self.vocabulary.ids(bins.numpy()))

    def bins(self, tokens: Tensor) -> Tensor:
        """Returns the bins of tokens (batch, a multiple of the width)."""
        return torch.from_numpy(self.vocabulary.bins(tokens.numpy().reshape(-1, self.width)))

    def values(self, bins: Tensor) -> NDArray[np.float32]:
        """Returns the centres of bins, (actions, width)."""
        return ActionBins.decode(bins.numpy()).reshape(-1, self.width)

    def actions(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Returns normalised values as actions (actions, width) in the units of `spec`, within its limits."""
        if self.statistics is not None:
            return self.spec.clip(self.statistics.unnormalize(values))
        low, high = np.array(self.spec.low), np.array(self.spec.high)
        return self.spec.clip(low + (values + 1) / 2 * (high - low))
