"""Instructions with words that nobody knows, so that a policy learns to get by on the others.

A policy that has heard few sentences gives every word a meaning, and takes a new word for what it half resembles.
Replacing words by made-up ones while training teaches that some words can be passed over. It is word dropout (Bowman
et al. 2016, section 3) with letters in the gap, because a tokenizer spells an unknown word in pieces.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import numpy as np

from vla.errors import ConfigError

_SHORTEST, _LONGEST = 2, 7  # letters of a made-up word


def with_unknown_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Returns `text` with each word replaced by a made-up one with probability `share`."""
    return " ".join(_made_up(rng) if rng.random() < share else word for word in text.split())


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
    made = ([with_unknown_words(text, share, rng) for _ in range(count)] for text in texts)
    return [
        [v if fits(v) else text for v in several] for text, several in zip(texts, made, strict=True)
    ]


def _made_up(rng: np.random.Generator) -> str:
    letters = list(string.ascii_lowercase)
    return "".join(rng.choice(letters, int(rng.integers(_SHORTEST, _LONGEST + 1))))
