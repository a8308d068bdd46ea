"""Rows of prompt tokens, of different lengths, as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vla.errors import CheckpointError, ConfigError


class Padding(Enum):
    """On which side of the shorter rows the padding goes."""

    LEFT = "left"  # every row ends at the same place: generation
    RIGHT = "right"


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """The tokens of one example.

    Attributes:
        ids: image placeholders included.
        is_answer: True for tokens the model is to write: answers with their end tokens.
    """

    ids: list[int]
    is_answer: list[bool]

    @classmethod
    def of(cls, *parts: tuple[Sequence[int], bool]) -> PromptRow:
        """Returns the row made of `parts`: ids, and whether the model is to write them."""
        return cls(
            ids=[token_id for ids, _ in parts for token_id in ids],
            is_answer=[is_answer for ids, is_answer in parts for _ in ids],
        )


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """Rows of equal length.

    Attributes:
        ids: padding included.
        valid: True for tokens that are not padding.
        suffix_mask: True for tokens the model is to write; the loss is taken on these.
    """

    ids: Int64[np.ndarray, "batch tokens"]
    valid: Bool[np.ndarray, "batch tokens"]
    suffix_mask: Bool[np.ndarray, "batch tokens"]


def pad_prompts(
    rows: Sequence[PromptRow],
    *,
    pad_id: int,
    max_tokens: int,
    padding: Padding = Padding.RIGHT,
) -> PromptBatch:
    """Returns `rows` as one batch, as long as the longest of them.

    Args:
        rows: one or more examples.
        pad_id: what fills the shorter rows.
        max_tokens: what the model reads.
        padding: on which side.

    Raises:
        ConfigError: there are no rows, or one is longer than `max_tokens`.
    """
    if not rows:
        raise ConfigError("no prompts were given; expected at least one")
    for index, row in enumerate(rows):
        if len(row.ids) > max_tokens:
            raise ConfigError(
                f"prompt {index} takes {len(row.ids)} tokens, {sum(row.is_answer)} of them answer; the model reads "
                f"{max_tokens}; shorten the text or give the pictures fewer tokens"
            )
    length = max(len(row.ids) for row in rows)
    ids: NDArray[np.int64] = np.full((len(rows), length), pad_id, dtype=np.int64)
    valid: NDArray[np.bool_] = np.zeros(ids.shape, dtype=np.bool_)
    suffix_mask = valid.copy()
    for index, row in enumerate(rows):
        start = length - len(row.ids) if padding is Padding.LEFT else 0
        span = slice(start, start + len(row.ids))
        ids[index, span], valid[index, span], suffix_mask[index, span] = (
            row.ids,
            True,
            row.is_answer,
        )
    return PromptBatch(ids=ids, valid=valid, suffix_mask=suffix_mask)


def first_id(tokenizer: Tokenizer, names: Sequence[str]) -> int:
    """Returns the id of the first of `names` that the tokenizer has; raises CheckpointError when it has none."""
    for name in names:
        token_id = tokenizer.token_to_id(name)
        if token_id is not None:
            return token_id
    raise CheckpointError(
        f"the tokenizer has none of the tokens {', '.join(names)}; it is of another family"
    )
