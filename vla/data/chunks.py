"""The actions that follow each frame of some datasets: normalised, and resting once an episode has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla.data.lerobot import Frames
from vla.data.stats import ActionStatistics
from vla.tokenizers.action_bins import ActionBins
from vla.tokenizers.fast import FastTokenizer
from vla.types import ActionSpec

_ROWS = 65_536  # chunks encoded at a time


@dataclass(kw_only=True)
class Chunks:
    """Of B frames the K actions from the frame's own on, of A numbers each.

    Attributes:
        actions: (B, K, A) float32 in physical units.
        normalized: (B, K, A) float32, the same in [-1, 1].
        bins: (B, K, A) int64, 0..255.
        is_past: (B, K) bool, True after the episode's end: relative numbers rest at 0, absolute ones at their last.
    """

    actions: NDArray[np.float32]
    normalized: NDArray[np.float32]
    bins: NDArray[np.int64]
    is_past: NDArray[np.bool_]


class ActionChunks:
    """Every frame's chunk; frames are numbered through all datasets."""

    def __init__(
        self,
        frames: Sequence[Frames],
        statistics: ActionStatistics,
        spec: ActionSpec,
        chunk_length: int,
    ) -> None:
        self.chunk_length = chunk_length
        self._actions = np.concatenate([f.actions for f in frames])
        self._normalized = statistics.normalize(self._actions)
        self._bins = ActionBins.encode(self._normalized).astype(np.uint8)
        offsets = np.cumsum([0, *(len(f) for f in frames)])
        self._ends = np.concatenate(
            [f.episode_ends[f.episode_index] + o for f, o in zip(frames, offsets, strict=False)]
        )
        self._is_relative = np.asarray(spec.is_relative)
        self._rest = statistics.normalize(np.zeros((1, spec.width), np.float32))
        self._rest_bins = ActionBins.encode(self._rest).astype(np.uint8)

    def __len__(self) -> int:
        return len(self._actions)

    def at(self, samples: NDArray[np.int64]) -> Chunks:
        """Returns the chunks of these frames."""
        rows = samples[:, None] + np.arange(self.chunk_length)
        ends = self._ends[samples][:, None]
        is_past = rows >= ends
        rows = np.minimum(rows, ends - 1)
        rests = is_past[..., None] & self._is_relative
        return Chunks(
            actions=np.where(rests, np.float32(0), self._actions[rows]),
            normalized=np.where(rests, self._rest, self._normalized[rows]),
            bins=np.where(rests, self._rest_bins, self._bins[rows]).astype(np.int64),
            is_past=is_past,
        )

    def some(self, count: int) -> NDArray[np.float32]:
        """Returns at most `count` normalised chunks, evenly spread over all frames, for FAST to learn from."""
        spread = np.linspace(0, len(self) - 1, min(count, len(self)))
        return self.at(np.unique(spread.astype(np.int64))).normalized

    def fast_tokens(self, fast: FastTokenizer, samples: NDArray[np.int64]) -> NDArray[np.int32]:
        """Returns the tokens of these frames' chunks, (samples, longest), -1 after each row's last."""
        rows: list[list[int]] = []
        for start in range(0, len(samples), _ROWS):
            rows += fast.encode(self.at(samples[start : start + _ROWS]).normalized)
        longest = max(map(len, rows), default=0)
        tokens = np.full((len(rows), longest), -1, np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens
