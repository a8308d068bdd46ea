"""Action chunks as few tokens: cosine transform, rounding, byte-pair merges (FAST, Pertsch et al. 2025).

    chunk (T, D) in [-1, 1]  --DCT along time-->  coefficients  --round(scale * .)-->  integers, mostly 0
        --lowest frequency of every dimension first-->  one character each  --BPE-->  0 .. num_tokens - 1

Neighbouring actions are alike, so binning spends most of its tokens on what is known already; here a chunk takes as
many as it has news. The number of tokens differs from chunk to chunk: a model writes them and then a stop token.

Source: the paper, sections 4 and 5, and the released processor (physical-intelligence/fast,
processing_action_tokenizer.py), whose decoding of ill-formed answers is kept: a zero chunk. Ours stores the chunk's
length and width with the vocabulary, and clips coefficients to the range seen in training instead of failing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from tokenizers import Tokenizer, models, trainers

from vla.errors import CheckpointError, ConfigError

FORMAT, FORMAT_VERSION = "vla-fast", 1
DEFAULT_SCALE = 10.0  # the released processor's; steps of 0.1 in a coefficient
DEFAULT_VOCAB_SIZE = 1024  # likewise
_FIRST_CHARACTER = 0x4E00  # 20,000 letters without case, spaces or combining marks follow


class FastTokenizer:
    """Chunks of normalised actions to variable numbers of tokens and back.

    Attributes:
        chunk_length: actions in a chunk.
        action_width: numbers in an action.
        scale: coefficients are rounded to multiples of its inverse.
        num_tokens: ids are 0 .. num_tokens - 1.
    """

    def __init__(
        self,
        bpe: Tokenizer,
        *,
        chunk_length: int,
        action_width: int,
        scale: float,
        min_level: int,
        max_level: int,
    ) -> None:
        """Use `train_fast` or `load_fast`; `min_level` and `max_level` are the integers that have a character."""
        self.chunk_length, self.action_width, self.scale = chunk_length, action_width, scale
        self.min_level, self.max_level = min_level, max_level
        self.num_tokens = bpe.get_vocab_size()
        self._bpe = bpe
        self._letters = [bpe.id_to_token(token_id) or "" for token_id in range(self.num_tokens)]
        self._basis = dct_matrix(chunk_length)

    def encode(self, actions: Float[ndarray, "batch steps dims"]) -> list[list[int]]:
        """Returns the tokens of each chunk of actions normalised to [-1, 1]; values outside are clipped.

        Raises:
            ConfigError: chunks of another length or width than the tokenizer was trained on, or not finite.
        """
        self._check(actions)
        levels = self._levels(np.clip(actions, -1.0, 1.0))
        texts = [_spelled(row, self.min_level) for row in levels]
        return [
            encoding.ids for encoding in self._bpe.encode_batch(texts, add_special_tokens=False)
        ]

    def decode(self, tokens: Sequence[Sequence[int]]) -> Float32[ndarray, "batch steps dims"]:
        """Returns the chunk that each row of tokens stands for, clipped to [-1, 1].

        A row that is no chunk (too many or too few coefficients, ids outside 0 .. num_tokens - 1) becomes a chunk of
        zeros, which is the middle of every dimension's range; ask `is_chunk` before acting on a model's answer.
        """
        levels = np.zeros((len(tokens), self.chunk_length * self.action_width), np.int64)
        for index, row in enumerate(tokens):
            if (found := self._read(row)) is not None:
                levels[index] = found
        coefficients = (
            levels.reshape(len(tokens), self.chunk_length, self.action_width) / self.scale
        )
        actions = np.einsum("ft,nfd->ntd", self._basis, coefficients)
        return np.clip(actions, -1.0, 1.0).astype(np.float32)

    def is_chunk(self, tokens: Sequence[int]) -> bool:
        """Returns whether the tokens spell exactly one coefficient for every frequency and dimension."""
        return self._read(tokens) is not None

    @property
    def max_tokens(self) -> int:
        """Tokens that a chunk takes at most: one for each number in it."""
        return self.chunk_length * self.action_width

    @property
    def num_coefficients(self) -> Int[ndarray, " tokens"]:
        """How many coefficients each token spells, (num_tokens,) int64.

        While a chunk is written, a token whose coefficients exceed those that are left cannot follow, and the stop
        token can only once none is left: so no answer is ill-formed.
        """
        return np.array([len(letters) for letters in self._letters], np.int64)

    @property
    def error_bound(self) -> float:
        """Root mean square error of decoding, over a chunk, at most; of coefficients that are not clipped."""
        return 0.5 / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "chunk_length": self.chunk_length,
            "action_width": self.action_width,
            "scale": self.scale,
            "min_level": self.min_level,
            "max_level": self.max_level,
            "bpe": json.loads(self._bpe.to_str()),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FastTokenizer:
        """Returns the tokenizer that `to_dict` described; raises CheckpointError for anything else."""
        if values.get("format") != FORMAT or values.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"not a FAST tokenizer of this version: format {values.get('format')!r}, version "
                f"{values.get('format_version')!r}; expected {FORMAT!r}, {FORMAT_VERSION}"
            )
        try:
            bpe = Tokenizer.from_str(json.dumps(values["bpe"]))
            settings = {name: values[name] for name in _SETTINGS}
        except Exception as error:  # the library raises bare Exception for every kind of damage
            raise CheckpointError(
                f"the FAST tokenizer is damaged: {error!r}; copy it again"
            ) from error
        return cls(bpe, **settings)

    def _levels(self, actions: Float[ndarray, "batch steps dims"]) -> Int[ndarray, "batch numbers"]:
        """Rounded coefficients, frequency by frequency, all dimensions of one before the next."""
        coefficients = np.einsum("ft,ntd->nfd", self._basis, actions) * self.scale
        levels = np.rint(coefficients).astype(np.int64).reshape(len(actions), -1)
        return np.clip(levels, self.min_level, self.max_level)

    def _read(self, tokens: Sequence[int]) -> Int[ndarray, " numbers"] | None:
        if not all(0 <= token < self.num_tokens for token in tokens):
            return None
        text = "".join(self._letters[token] for token in tokens)
        if len(text) != self.chunk_length * self.action_width:
            return None
        return np.array([ord(letter) for letter in text]) - _FIRST_CHARACTER + self.min_level

    def _check(self, actions: Float[ndarray, "batch steps dims"]) -> None:
        expected = (self.chunk_length, self.action_width)
        if actions.shape[1:] != expected:
            raise ConfigError(
                f"chunks of {actions.shape[1]} actions of {actions.shape[2]} numbers; this FAST tokenizer was trained "
                f"on {expected[0]} of {expected[1]}: train another one for these"
            )
        if not np.isfinite(actions).all():
            raise ConfigError("actions must be finite; check the dataset's statistics")


_SETTINGS = ("chunk_length", "action_width", "scale", "min_level", "max_level")


def train_fast(
    chunks: Float[ndarray, "batch steps dims"],
    *,
    scale: float = DEFAULT_SCALE,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
) -> FastTokenizer:
    """Returns a tokenizer for chunks like these, normalised to [-1, 1]; the same chunks give the same tokenizer.

    Args:
        chunks: as many as there are; a few thousand do.
        scale: larger is finer and takes more tokens.
        vocab_size: at most so many tokens; merges that occur once only are not made.

    Raises:
        ConfigError: no chunks, or fewer tokens than there are levels.
    """
    if not len(chunks) or not scale > 0:
        raise ConfigError(
            f"FAST needs some chunks and a positive scale; got {len(chunks)} and {scale}"
        )
    num_frequencies, width = chunks.shape[1:]
    largest = math.ceil(scale * math.sqrt(num_frequencies))  # of a constant chunk of ones
    blank = FastTokenizer(
        Tokenizer(models.BPE()),
        chunk_length=num_frequencies,
        action_width=width,
        scale=scale,
        min_level=-largest,
        max_level=largest,
    )
    blank._check(chunks)
    levels = blank._levels(np.clip(chunks, -1.0, 1.0))
    low, high = int(levels.min()), int(levels.max())
    if vocab_size < high - low + 1:
        raise ConfigError(
            f"vocab_size = {vocab_size}, but coefficients take the {high - low + 1} levels {low}..{high}; "
            f"raise it above that or lower scale (now {scale:g})"
        )
    alphabet = [chr(_FIRST_CHARACTER + index) for index in range(high - low + 1)]
    bpe = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=alphabet,
        max_token_length=num_frequencies * width,
        show_progress=False,
    )
    bpe.train_from_iterator((_spelled(row, low) for row in levels), trainer)
    return FastTokenizer(
        bpe,
        chunk_length=num_frequencies,
        action_width=width,
        scale=scale,
        min_level=low,
        max_level=high,
    )


def save_fast(tokenizer: FastTokenizer, path: Path) -> None:
    """Writes the tokenizer as one JSON file."""
    path.write_text(json.dumps(tokenizer.to_dict(), indent=1) + "\n", encoding="utf-8")


def load_fast(path: Path) -> FastTokenizer:
    """Returns the tokenizer stored at `path`; raises CheckpointError when it is missing or not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); copy the checkpoint again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a FAST tokenizer; copy the checkpoint again")
    return FastTokenizer.from_dict(values)


def dct_matrix(length: int) -> Float[ndarray, "length length"]:
    """Returns the orthonormal DCT-II: row f holds frequency f; `matrix @ signal` transforms, its transpose inverts."""
    frequency, time = np.mgrid[:length, :length]
    matrix = np.cos(math.pi * frequency * (2 * time + 1) / (2 * length)) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    return matrix


def _spelled(levels: Int[ndarray, " numbers"], lowest: int) -> str:
    return "".join(chr(_FIRST_CHARACTER + int(level) - lowest) for level in levels)
