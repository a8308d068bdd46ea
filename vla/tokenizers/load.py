"""Reads a checkpoint's own tokenizer from disk, whichever of the two files it brings."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from vla.errors import CheckpointError
from vla.tokenizers.sentencepiece import tokenizer_from_sentencepiece
from vla.tokenizers.text import load_text_tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")  # the first that is there is read


def load_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer of a checkpoint; text that spells a special token gets that text's characters.

    Beginning, end and placeholder tokens are put by the prompt builders (`vla.tokenizers.prompt`), by id.

    Args:
        path: the checkpoint's folder, a tokenizer.json or a SentencePiece .model file.

    Raises:
        CheckpointError: there is no tokenizer, or the file is damaged or of a kind that cannot be read.
    """
    if path.is_dir():
        found = [path / name for name in TOKENIZER_FILES if (path / name).is_file()]
        if not found:
            raise CheckpointError(
                f"no tokenizer in {path}; expected {' or '.join(TOKENIZER_FILES)}: copy it there from the checkpoint"
            )
        path = found[0]
    if path.suffix != ".model":
        return load_text_tokenizer(path)
    if not path.is_file():
        raise CheckpointError(f"no tokenizer at {path}; copy it there from the checkpoint")
    try:
        return tokenizer_from_sentencepiece(path.read_bytes())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
