"""Instructions with words that nobody knows, so that a policy learns to get by on the others.

A policy that has heard few sentences gives every word a meaning, and takes a new word for what it half resembles.
Replacing words by made-up ones while training teaches that some words can be passed over. It is word dropout (Bowman
et al. 2016, section 3) with letters in the gap, because a tokenizer spells an unknown word in pieces, and some of the
pieces are words it knows: "goes" is no "go".
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import numpy as np

from vla.errors import ConfigError

_SHORTEST, _LONGEST = 2, 7  # letters of a made-up word


def with_unknown_words(
    text: str, share: float, known: Sequence[str], rng: np.random.Generator
) -> str:
    """Returns `text` with each word replaced by a made-up one with probability `share`.

    Half of the made-up words are letters alone, half are one of the `known` words with letters added.
    """
    return " ".join(_made_up(known, rng) if rng.random() < share else word for word in text.split())


def variants(
    texts: Sequence[str], share: float, count: int, fits: Callable[[str], bool], seed: int
) -> list[list[str]]:
    """Returns `count` variants of every text; one that does not fit is replaced by the text itself.

    Args:
        texts: instructions.
        share: of the words that are replaced, 0 up to but not including 1.
        count: variants of each, at least 1.
        fits: whether the model can read a text.
        seed: equal seeds give equal variants.

    Raises:
        ConfigError: `share` is not a share.
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError(
            f"unknown_words is {share}; expected a share from 0 up to, not including, 1"
        )
    rng = np.random.default_rng((seed, 5))
    known = sorted({word for text in texts for word in text.split()})
    made = ([with_unknown_words(text, share, known, rng) for _ in range(count)] for text in texts)
    return [
        [v if fits(v) else text for v in several] for text, several in zip(texts, made, strict=True)
    ]


def _made_up(known: Sequence[str], rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        return _letters(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)))
    word, added = str(rng.choice(known)), _letters(rng, int(rng.integers(1, 4)))
    return word + added if rng.random() < 0.7 else added + word


def _letters(rng: np.random.Generator, count: int) -> str:
    return "".join(rng.choice(list(string.ascii_lowercase), count))
