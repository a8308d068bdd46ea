"""A small text tokenizer of our own recipe, trained on the instructions a model is to understand.

Recipe: NFKC, lower case, byte-level words with a leading space, byte-pair merges. All 256 bytes are in the
vocabulary, so every text has an encoding and the unknown token never appears; a word of the training corpus is
one or two tokens. Special tokens come first: <pad> 0, <bos> 1, <eos> 2, <unk> 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vla.errors import CheckpointError

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL_TOKENS = [PAD, BOS, EOS, UNK]


def train_text_tokenizer(corpus: Iterable[str], vocab_size: int = 512) -> Tokenizer:
    """Returns a tokenizer of at most `vocab_size` tokens, 260 of them specials and bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return _reading_specials_as_text(tokenizer)


def save_text_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Writes the tokenizer as one JSON file."""
    tokenizer.save(str(path))


def load_text_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer stored at `path`; raises CheckpointError when it is missing or not one."""
    if not path.is_file():
        raise CheckpointError(
            f"no tokenizer at {path}; the checkpoint is incomplete, copy it again"
        )
    try:
        return _reading_specials_as_text(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise CheckpointError(
            f"{path} is not a tokenizer: {error}; copy the checkpoint again"
        ) from error


def _reading_specials_as_text(tokenizer: Tokenizer) -> Tokenizer:
    """An instruction that spells "<eos>" gets the tokens of those five characters; the JSON does not keep this."""
    tokenizer.encode_special_tokens = True
    return tokenizer
