"""Actions as tokens: 256 bins a dimension with OpenVLA's edges and centres, and where the ids live. numpy only.

    value in [-1, 1]  --encode-->  bin 0..255  --ids-->  token id  --bins-->  bin  --decode-->  value

Source: openvla/openvla c8f03f4, prismatic/vla/action_tokenizer.py. Its `digit` (1..256) is bin + 1.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 256


class ActionBins:
    """256 edges spread evenly over [-1, 1], so 255 intervals and 255 centres.

    The last bin, 255, holds exactly +1 and decodes like bin 254: 256 tokens stand for 255 values. The
    extreme values themselves are never reproduced; no round trip is off by more than half a bin, 1/255.
    """

    edges: NDArray[np.float64] = np.linspace(-1.0, 1.0, NUM_BINS, dtype=np.float64)
    centers: NDArray[np.float64] = (edges[:-1] + edges[1:]) / 2.0
    half_bin: float = 1.0 / (NUM_BINS - 1)

    @classmethod
    def encode(cls, values: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Returns the bins of normalised `values`; values outside [-1, 1] are clipped to it."""
        return (np.digitize(np.clip(values, -1.0, 1.0), cls.edges) - 1).astype(np.int64)

    @classmethod
    def decode(cls, bins: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Returns the centre of each bin; bins outside 0..255 are clipped, as the reference does."""
        return cls.centers[np.clip(bins, 0, NUM_BINS - 2)].astype(np.float32)


class ActionLayout(Enum):
    """Which rows of the vocabulary the bins take."""

    LAST_256 = (
        "last_256"  # OpenVLA: the last 256 text tokens are given up; bin 0 is the very last id
    )
    NEW_256 = "new_256"  # 256 new ids after the text vocabulary, shared by all dimensions
    PER_DIMENSION = "per_dimension"  # 256 new ids for every dimension after the text vocabulary


class ActionVocabulary:
    """Token id of every (dimension, bin): `first_ids[dimension] + step * bin`.

    Attributes:
        first_ids: id of bin 0 of each dimension.
        step: +1, or -1 where ids fall while values rise (LAST_256).
        num_new_ids: ids added after the text vocabulary.
    """

    def __init__(self, layout: ActionLayout, text_vocab_size: int, action_width: int) -> None:
        self.layout = layout
        self.step = 1
        match layout:
            case ActionLayout.LAST_256:
                self.step, self.num_new_ids = -1, 0
                self.first_ids = [text_vocab_size - 1] * action_width
            case ActionLayout.NEW_256:
                self.num_new_ids = NUM_BINS
                self.first_ids = [text_vocab_size] * action_width
            case ActionLayout.PER_DIMENSION:
                self.num_new_ids = NUM_BINS * action_width
                self.first_ids = [text_vocab_size + NUM_BINS * dim for dim in range(action_width)]

    def ids(self, bins: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Returns the token ids of `bins` (..., action width)."""
        return np.asarray(self.first_ids, np.int64) + self.step * bins

    def bins(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Returns the bins of `ids` (..., action width); ids of other tokens are clipped to the nearest bin."""
        return np.clip((ids - np.asarray(self.first_ids, np.int64)) * self.step, 0, NUM_BINS - 1)
