"""Places as text, PaliGemma's way (Beyer et al. 2024): boxes in 1024 location tokens, masks in 128 codewords.

    detection      <loc0210><loc0142><loc0867><loc0821> red cube ; <loc...>...
    segmentation   <loc0210><loc0142><loc0867><loc0821><seg035>...16 codewords...<seg101> red cube

The four locations are y_min, x_min, y_max, x_max as shares of the picture, row 0 at the top.
Source of rounding and order: big_vision (pp/proc_fn for PaliGemma) and the model card.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from vla.errors import CheckpointError, ConfigError

NUM_LOCATIONS = 1024
NUM_CODEWORDS = 128
CODEWORDS_PER_MASK = 16
LOCATION_TOKENS = tuple(f"<loc{index:04d}>" for index in range(NUM_LOCATIONS))
CODEWORD_TOKENS = tuple(f"<seg{index:03d}>" for index in range(NUM_CODEWORDS))
SEPARATOR = " ; "

_PLACE = re.compile(r"(<loc\d{4}>|<seg\d{3}>)")
_OBJECT = re.compile(
    r"(?P<box>(?:<loc\d{4}>){4})(?P<mask>(?:<seg\d{3}>){16})?\s*(?P<label>[^<>;]*)"
)


@dataclass(frozen=True, kw_only=True)
class LocatedObject:
    """One object of an answer.

    Attributes:
        label: its name.
        box: y_min, x_min, y_max, x_max in [0, 1].
        codewords: 16 indices into the mask codebook, or None for a detection.
    """

    label: str
    box: tuple[float, float, float, float]
    codewords: tuple[int, ...] | None = None


class PlaceVocabulary:
    """Text with location and mask tokens to ids and back, each of those tokens always one id.

    A tokenizer that does not know them as tokens of their own, or reads special tokens as text, spells
    "<loc0001>" in nine characters (transformers pull request 30918); so they are looked up here, apart from
    the text between them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Looks the ids up.

        Raises:
            CheckpointError: the tokenizer lacks some of the 1024 + 128 tokens.
        """
        self.tokenizer = tokenizer
        found = {name: tokenizer.token_to_id(name) for name in (*LOCATION_TOKENS, *CODEWORD_TOKENS)}
        missing = [name for name, token_id in found.items() if token_id is None]
        if missing:
            raise CheckpointError(
                f"the tokenizer lacks {len(missing)} of the {len(found)} location and mask tokens, {missing[0]} "
                "first; it is not PaliGemma's"
            )
        self._ids: dict[str, int] = found
        self._names = {token_id: name for name, token_id in found.items()}

    def ids(self, text: str) -> list[int]:
        """Returns the ids of `text`, without a beginning or an end token."""
        ids: list[int] = []
        for piece in _PLACE.split(text):
            if piece in self._ids:
                ids.append(self._ids[piece])
            elif piece:
                ids.extend(self.tokenizer.encode(piece, add_special_tokens=False).ids)
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; special tokens are left out."""
        pieces: list[str] = []
        for is_place, run in itertools.groupby(ids, key=self._names.__contains__):
            if is_place:
                pieces.extend(self._names[token_id] for token_id in run)
            else:
                pieces.append(self.tokenizer.decode(list(run)))
        return "".join(pieces)


def encode_locations(shares: Sequence[float]) -> str:
    """Returns one location token for each share of the picture; values outside [0, 1] are clipped to it.

    Decoding gives the share back to within half a step, 1 / 2046.

    Raises:
        ConfigError: a value is not finite.
    """
    values = np.asarray(shares, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ConfigError(f"locations must be finite shares of the picture; got {list(shares)}")
    indices = np.rint(np.clip(values, 0.0, 1.0) * (NUM_LOCATIONS - 1)).astype(int)
    return "".join(LOCATION_TOKENS[index] for index in indices)


def encode_objects(objects: Sequence[LocatedObject]) -> str:
    """Returns the answer that names `objects`, in their order.

    Raises:
        ConfigError: a box that is upside down, or codewords that are not 16 indices below 128.
    """
    return SEPARATOR.join(_encode_object(item) for item in objects)


def decode_objects(text: str) -> list[LocatedObject]:
    """Returns the objects an answer names; what is no object (half a box, other words) is left out.

    A generated answer is not guaranteed to be well formed, so nothing is raised.
    """
    found = []
    for match in _OBJECT.finditer(text):
        indices = [int(digits) for digits in re.findall(r"<loc(\d{4})>", match["box"])]
        words = [int(digits) for digits in re.findall(r"<seg(\d{3})>", match["mask"] or "")]
        if max(indices) >= NUM_LOCATIONS or (words and max(words) >= NUM_CODEWORDS):
            continue
        y_min, x_min, y_max, x_max = (index / (NUM_LOCATIONS - 1) for index in indices)
        found.append(
            LocatedObject(
                label=match["label"].strip(),
                box=(y_min, x_min, y_max, x_max),
                codewords=tuple(words) or None,
            )
        )
    return found


def _encode_object(item: LocatedObject) -> str:
    y_min, x_min, y_max, x_max = item.box
    if y_max < y_min or x_max < x_min:
        raise ConfigError(
            f"the box of {item.label!r} is {item.box}; expected (y_min, x_min, y_max, x_max)"
        )
    words = item.codewords or ()
    if item.codewords is not None and (
        len(words) != CODEWORDS_PER_MASK or not all(0 <= word < NUM_CODEWORDS for word in words)
    ):
        raise ConfigError(
            f"a mask is {CODEWORDS_PER_MASK} codewords of 0..{NUM_CODEWORDS - 1}; got {list(words)}"
        )
    mask = "".join(CODEWORD_TOKENS[word] for word in words)
    return f"{encode_locations(item.box)}{mask} {item.label}"
