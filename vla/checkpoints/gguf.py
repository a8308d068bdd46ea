"""Language models in llama.cpp's file format: weights, mostly quantised, with settings and vocabulary in one file.

Needs the package `gguf`, which comes with the development extra. Weights are dequantised one at a time, to fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from vla.checkpoints.maps import gguf_gemma3
from vla.errors import CheckpointError, ConfigError
from vla.models.decoder import Decoder
from vla.tokenizers.sentencepiece import (
    SPACE,
    PieceKind,
    SentencePieceModel,
    tokenizer_from_pieces,
)

_FAMILIES = {"gemma3": gguf_gemma3}


class GGUFFile(Mapping[str, Tensor]):
    """The weights of a file by name; asking for one dequantises it, and nothing else.

    Attributes:
        settings: everything else in the file by name, vocabulary included, read when asked for.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Opens the file and reads its table of contents (of a large vocabulary: ten seconds).

        Args:
            path: of one `.gguf` file.
            dtype: weights are handed out in it.

        Raises:
            ConfigError: the package `gguf` is not installed.
            CheckpointError: the file is missing, truncated or of another format.
        """
        try:
            import gguf
        except ImportError:
            raise ConfigError(
                f"reading {path} needs the package gguf, which is not installed; pip install gguf"
            ) from None
        if not path.is_file():
            raise CheckpointError(f"no file {path}; give the path of a .gguf file")
        try:
            reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise CheckpointError(
                f"{path} is not a whole GGUF file ({error}); copy it again"
            ) from None
        self.path = path
        self.settings: Mapping[str, Any] = _Settings(reader.fields, path)
        self._dtype = dtype
        self._dequantize = gguf.dequantize
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    def __getitem__(self, name: str) -> Tensor:
        found = self._tensors[name]
        values = np.array(self._dequantize(found.data, found.tensor_type), copy=True)
        return torch.from_numpy(values).to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def load(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Decoder, Tokenizer]:
    """Returns the language model in a GGUF file, in eval mode, and its own tokenizer.

    Raises:
        ConfigError: the package `gguf` is not installed.
        CheckpointError: the file is damaged, or of a family that is not read.
    """
    file = GGUFFile(path, dtype)
    architecture = file.settings["general.architecture"]
    if architecture not in _FAMILIES:
        raise CheckpointError(
            f"{path} holds a {architecture!r}; only {', '.join(_FAMILIES)} can be read from GGUF, other "
            "families from their directory on the hub"
        )
    family = _FAMILIES[architecture]
    config = family.decoder_config(file.settings, file["token_embd.weight"].shape[0])
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder.load_state_dict(family.key_map(config).convert(file, decoder), assign=True)
    return decoder.eval(), tokenizer(file.settings)


def tokenizer(settings: Mapping[str, Any]) -> Tokenizer:
    """Returns the tokenizer of a file with a SentencePiece vocabulary; BOS is the prompt builder's business.

    Raises:
        CheckpointError: the vocabulary is of another kind.
    """
    kind = settings["tokenizer.ggml.model"]
    if kind != "llama":
        raise CheckpointError(
            f"the vocabulary is of kind {kind!r}; only 'llama' (SentencePiece) can be read from GGUF"
        )
    columns = (settings[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    pieces = [
        (text, score, PieceKind(number)) for text, score, number in zip(*columns, strict=True)
    ]
    unknown = settings["tokenizer.ggml.unknown_token_id"]
    pieces[unknown] = (*pieces[unknown][:2], PieceKind.UNKNOWN)  # may be marked as control
    return tokenizer_from_pieces(
        SentencePieceModel(
            pieces=[_with_own_spaces(*piece) for piece in pieces],
            is_bpe=True,
            has_dummy_prefix=settings.get("tokenizer.ggml.add_space_prefix", True),
            drops_spaces=False,
        )
    )


def _with_own_spaces(text: str, score: float, kind: PieceKind) -> tuple[str, float, PieceKind]:
    """User-defined pieces are stored with plain spaces, the others as SentencePiece has them."""
    return text.replace(" ", SPACE) if kind is PieceKind.USER_DEFINED else text, score, kind


class _Settings(Mapping[str, Any]):
    def __init__(self, fields: Mapping[str, Any], path: Path) -> None:
        self._fields, self._path = fields, path

    def __getitem__(self, name: str) -> Any:
        return self._fields[name].contents()

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)
