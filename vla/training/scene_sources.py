"""What the stages read: rows of labelled scenes, the words in them, and a tokenizer for these words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer

from vla.checkpoints.folder import TOKENIZER, find
from vla.data.scene_pictures import HELD_OUT_SEED
from vla.data.scene_rows import SceneRow
from vla.data.scenes import open_scenes
from vla.errors import DatasetError
from vla.tokenizers.scene_vocabulary import SCENE_TOKENS, train_scene_tokenizer
from vla.tokenizers.text import load_text_tokenizer
from vla.training.pretrain_config import PretrainConfig


def open_rows(cfg: PretrainConfig) -> Sequence[SceneRow]:
    """Returns all rows of all folders; raises DatasetError when none is named or one cannot be read."""
    if not cfg.scenes:
        raise DatasetError("no scenes given; name one or more folders with scenes=[PATH,...]")
    return list(chain.from_iterable(open_scenes(Path(root).expanduser()) for root in cfg.scenes))


def scene_corpus(rows: Iterable[SceneRow]) -> list[str]:
    """Returns what is said about the scenes that are trained on: captions, questions, answers, referring phrases."""
    return _said(row for row in rows if row.scene_seed < HELD_OUT_SEED)


def held_out_corpus(rows: Iterable[SceneRow]) -> list[str]:
    """Returns the same of held-out scenes, in the words of training."""
    return _said(row for row in rows if row.scene_seed >= HELD_OUT_SEED)


def _said(rows: Iterable[SceneRow]) -> list[str]:
    corpus: list[str] = []
    for row in rows:
        corpus += row.captions
        corpus += [
            f"{item.question} {item.answer}" for item in row.questions if item.split == "train"
        ]
        corpus += [phrase for item in row.objects for phrase in item.phrases]
    return corpus


def stage_tokenizer(cfg: PretrainConfig, newest: Path | None, corpus: Sequence[str]) -> Tokenizer:
    """Returns the tokenizer of checkpoint `newest`, else that of `cfg.tokenizer_from`, else one trained on `corpus`.

    Raises:
        CheckpointError: there is none where one is named.
        ConfigError: `cfg.vocab_size` leaves no room for words.
    """
    source = newest or (find(Path(cfg.tokenizer_from).expanduser()) if cfg.tokenizer_from else None)
    if source is not None:
        return load_text_tokenizer(source / TOKENIZER)
    return train_scene_tokenizer(corpus, cfg.vocab_size - len(SCENE_TOKENS))
