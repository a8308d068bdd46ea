"""SentencePiece BPE models (Llama 2, Gemma, PaliGemma) as a `tokenizers.Tokenizer` with the same ids. No I/O here.

The file is one protocol buffer of which four fields matter; its format has been frozen since 2018. Reading them
takes twenty lines. The alternatives cost more: the `sentencepiece` package is a second tokenizer with another
interface that tells neither how a model treats spaces nor which pieces its user defined, and its generated
`sentencepiece_model_pb2` needs a matching protobuf and clashes with other copies of itself in one process.
tests/parity/test_tokenizers.py compares ids with that package's.

What is carried over: pieces and scores, byte fallback, the dummy prefix, user-defined pieces. What a released
Llama or Gemma does not use is refused: unigram models, normalisation tables, dropping of repeated spaces.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from vla.errors import CheckpointError

SPACE = "\u2581"  # stands for a space in every piece


class PieceKind(IntEnum):
    """What a piece is for: ModelProto.SentencePiece.Type of sentencepiece_model.proto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(kw_only=True)
class SentencePieceModel:
    """The fields of sentencepiece_model.proto that decide ids, with the defaults stated there.

    A GGUF file holds the same pieces, scores and kinds (tokenizer.ggml.tokens, .scores, .token_type).
    """

    pieces: list[tuple[str, float, PieceKind]] = field(default_factory=list)  # text, score, kind
    has_dummy_prefix: bool = True  # a space is put before the text (Llama: yes, Gemma: no)
    is_bpe: bool = False
    space_is_suffix: bool = False
    has_character_map: bool = False
    drops_spaces: bool = True
    escapes_spaces: bool = True


def tokenizer_from_sentencepiece(model: bytes) -> Tokenizer:
    """Returns the tokenizer of a SentencePiece model file's contents.

    Text that spells a control piece such as "</s>" gets the tokens of those characters, as in SentencePiece.

    Raises:
        CheckpointError: not such a file, or one that uses what Llama and Gemma do not.
    """
    try:
        parsed = _parse(model)
    except (IndexError, ValueError, struct.error, UnicodeDecodeError, TypeError) as error:
        raise CheckpointError(
            f"not a SentencePiece model: {error}; copy the checkpoint's tokenizer again"
        ) from error
    return tokenizer_from_pieces(parsed)


def tokenizer_from_pieces(model: SentencePieceModel) -> Tokenizer:
    """Returns the tokenizer of a model that is already read.

    Raises:
        CheckpointError: it uses what Llama and Gemma do not.
    """
    _refuse_what_is_not_carried_over(model)
    tokenizer = _tokenizer(model)
    for piece, _, kind in model.pieces:
        if kind is PieceKind.USER_DEFINED and tokenizer.encode(piece).tokens != [piece]:
            raise CheckpointError(
                f"the user-defined piece {piece!r} cannot be kept whole; convert this model to tokenizer.json"
            )
    return tokenizer


def _tokenizer(model: SentencePieceModel) -> Tokenizer:
    vocab = {piece: index for index, (piece, _, _) in enumerate(model.pieces)}
    of_kind = {kind: [p for p, _, k in model.pieces if k is kind] for kind in PieceKind}
    spaces = [piece for piece in of_kind[PieceKind.USER_DEFINED] if SPACE in piece]
    unknown = of_kind[PieceKind.UNKNOWN][0]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(model, vocab),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=bool(of_kind[PieceKind.BYTE]),
        )
    )
    to_space = normalizers.Replace(" ", SPACE)
    decoding: list[decoders.Decoder] = [
        decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
    ]  # fmt: skip
    tokenizer.normalizer = to_space
    if model.has_dummy_prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), to_space])
        decoding.append(decoders.Strip(content=" ", left=1, right=0))
    tokenizer.decoder = decoders.Sequence(decoding)
    if spaces:  # runs of spaces come before any merge, the longest first
        longest_first = sorted(spaces, key=len, reverse=True)
        pattern = Regex("|".join(re.escape(piece) for piece in longest_first))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.add_special_tokens(
        [AddedToken(piece, normalized=False) for piece in (unknown, *of_kind[PieceKind.CONTROL])]
    )
    tokenizer.add_tokens(
        [
            AddedToken(piece, normalized=False)
            for piece in of_kind[PieceKind.USER_DEFINED]
            if piece not in spaces
        ]
    )
    tokenizer.encode_special_tokens = True
    return tokenizer


def _merges(model: SentencePieceModel, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, best score first: what SentencePiece searches for while encoding."""
    can_merge = {
        piece
        for piece, _, kind in model.pieces
        if kind is PieceKind.NORMAL or (kind is PieceKind.USER_DEFINED and not piece.strip(SPACE))
    }
    ranked = []
    for piece, score, kind in model.pieces:
        if piece in can_merge or kind is PieceKind.UNUSED:
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in can_merge and right in can_merge:
                    if kind is PieceKind.UNUSED:
                        raise CheckpointError(
                            f"the unused piece {piece!r} is made of {left!r} and {right!r} while encoding and taken "
                            "apart again, which is not carried over; convert this model to tokenizer.json"
                        )
                    ranked.append((-score, vocab[left], vocab[right], left, right))
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def _refuse_what_is_not_carried_over(model: SentencePieceModel) -> None:
    kinds = {kind for _, _, kind in model.pieces}
    faults = {
        "is no BPE model": not model.is_bpe,
        "has no unknown piece": PieceKind.UNKNOWN not in kinds,
        "normalises text with a table": model.has_character_map,
        "drops repeated spaces": model.drops_spaces,
        "keeps spaces as they are": not model.escapes_spaces,
        "puts spaces at the ends of words": model.space_is_suffix,
        "has user-defined pieces and a dummy prefix": (
            model.has_dummy_prefix and PieceKind.USER_DEFINED in kinds
        ),
    }
    found = [fault for fault, is_so in faults.items() if is_so]
    if found:
        raise CheckpointError(
            f"the SentencePiece model {' and '.join(found)}, which no Llama or Gemma does; "
            "convert it to tokenizer.json with the library that made it"
        )


def _parse(message: bytes) -> SentencePieceModel:
    """Field numbers: sentencepiece_model.proto of google/sentencepiece v0.2.0."""
    model = SentencePieceModel()
    for number, value in _fields(message):
        match number:
            case 1:  # pieces
                parts = {1: b"", 2: b"\0\0\0\0", 3: 1} | dict(_fields(value))
                (score,) = struct.unpack("<f", parts[2])
                model.pieces.append((parts[1].decode(), score, PieceKind(parts[3])))
            case 2:  # trainer_spec
                parts = dict(_fields(value))
                model.is_bpe = parts.get(3, 1) == 2
                model.space_is_suffix = bool(parts.get(24, 0))
            case 3:  # normalizer_spec
                parts = dict(_fields(value))
                model.has_character_map = bool(parts.get(2, b""))
                model.has_dummy_prefix = bool(parts.get(3, 1))
                model.drops_spaces = bool(parts.get(4, 1))
                model.escapes_spaces = bool(parts.get(5, 1))
    if not model.pieces:
        raise ValueError("it has no pieces")
    return model


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (field number, value) of a protocol buffer: numbers for varints, bytes for everything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
            case 1 | 2 | 5 as wire_type:
                length = {1: 8, 5: 4}.get(wire_type)
                if length is None:
                    length, at = _varint(message, at)
                value, at = message[at : at + length], at + length
                if at > len(message):
                    raise ValueError("it ends in the middle of a field")
            case other:
                raise ValueError(f"it has a field of unknown type {other}")
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, at
