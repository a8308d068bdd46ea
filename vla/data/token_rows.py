"""Texts packed into rows of tokens, several a row, each a document of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from vla.data.mixture import Mixture
from vla.data.prefetch import made_ahead
from vla.errors import DatasetError
from vla.tokenizers.text import BOS, EOS, PAD

_OUTSIDE = -1  # document of padding


@dataclass(kw_only=True)
class TokenBatch:
    """Rows of packed texts.

    Attributes:
        ids: (B, T) int64: BOS, text, EOS, BOS, text, EOS, ..., padding.
        documents: (B, T) int64, number of the text in its row; -1 for padding.
        positions: (B, T) int64, counted from 0 in every text.
    """

    ids: Tensor
    documents: Tensor
    positions: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        """Returns the batch on `device`."""
        return TokenBatch(
            ids=self.ids.to(device),
            documents=self.documents.to(device),
            positions=self.positions.to(device),
        )


class TokenBatches:
    """Batches by step number, an endless shuffle of packed rows; `at(step)` is a pure function of (seed, step).

    Texts are packed once, in an order that the seed decides, each into the row that is being filled; a text longer than
    a row is cut.

    Raises:
        DatasetError: there are no texts.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        if not texts:
            raise DatasetError("there are no texts to train on; collect scenes with captions")
        order = np.random.default_rng((seed, 6)).permutation(len(texts))
        encoded = tokenizer.encode_batch([texts[index] for index in order])
        bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
        packed = _packed([[bos, *item.ids[: max_tokens - 2], eos] for item in encoded], max_tokens)
        self._ids, self._documents, self._positions = _filled(
            packed, max_tokens, tokenizer.token_to_id(PAD)
        )
        self._batch_size = batch_size
        self._order = Mixture([np.arange(len(self._ids))], [1.0], seed)

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self._ids)

    def at(self, step: int) -> TokenBatch:
        """Returns the batch of `step`."""
        rows = self._order.take(step * self._batch_size, self._batch_size)
        return self._rows(rows)

    def once(self) -> Iterator[TokenBatch]:
        """Yields every row once, in batches."""
        for start in range(0, len(self), self._batch_size):
            yield self._rows(np.arange(start, min(start + self._batch_size, len(self))))

    def prefetch(self, start_step: int, end_step: int) -> Iterator[TokenBatch]:
        """Returns the batches of start_step .. end_step - 1 in order, made ahead by one thread."""
        return made_ahead(self.at, start_step, end_step)

    def _rows(self, rows: NDArray[np.int64]) -> TokenBatch:
        ids, documents, positions = (
            torch.from_numpy(table[rows].astype(np.int64))
            for table in (self._ids, self._documents, self._positions)
        )
        return TokenBatch(ids=ids, documents=documents, positions=positions)


def _packed(texts: list[list[int]], max_tokens: int) -> list[list[list[int]]]:
    """Texts by row."""
    rows: list[list[list[int]]] = [[]]
    free = max_tokens
    for text in texts:
        if len(text) > free:
            rows.append([])
            free = max_tokens
        rows[-1].append(text)
        free -= len(text)
    return [row for row in rows if row]


def _filled(
    rows: list[list[list[int]]], max_tokens: int, pad: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """(rows, max_tokens) ids, documents and positions."""
    ids = np.full((len(rows), max_tokens), pad, np.int32)
    documents = np.full_like(ids, _OUTSIDE)
    positions = np.zeros_like(ids)
    for number, row in enumerate(rows):
        start = 0
        for document, text in enumerate(row):
            end = start + len(text)
            ids[number, start:end] = text
            documents[number, start:end] = document
            positions[number, start:end] = range(len(text))
            start = end
    return ids, documents, positions
