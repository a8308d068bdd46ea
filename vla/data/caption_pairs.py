"""Batches of pictures, each with a caption that is true of it and of no other picture in the batch.

A contrastive loss calls every other text of the batch wrong. Two pictures of one scene, or of two scenes that happen
to be described alike, would make a right answer wrong. So a batch holds one picture a scene, and no chosen caption is
among the captions of another picture; a picture that clashes gives its place to another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from vla.data.mixture import Mixture
from vla.data.prefetch import made_ahead
from vla.data.scene_pictures import ScenePictures
from vla.errors import ConfigError
from vla.tokenizers.text import BOS, EOS, PAD

_REPLACEMENTS = 50  # tries to fill a place whose picture clashed


@dataclass(kw_only=True)
class PairBatch:
    """Pictures and their captions.

    Attributes:
        pictures: (B, 3, S, S) uint8.
        ids: (B, T) int64: BOS, caption, EOS, padding.
    """

    pictures: Tensor
    ids: Tensor

    def to(self, device: torch.device) -> PairBatch:
        """Returns the batch on `device`."""
        return PairBatch(pictures=self.pictures.to(device), ids=self.ids.to(device))


class PairBatches:
    """Batches by step number, an endless shuffle of the pictures; `at(step)` is a pure function of (seed, step).

    Args:
        scenes: pictures and captions.
        tokenizer: of the captions.
        max_tokens: length of every row of ids; longer captions are cut, EOS is kept.
        batch_size: pairs a batch, of this process.
        seed: decides order and captions.
        shard: (index, count): this process takes its share of batches that are `count` times as large, and distinct
            as a whole.
    """

    def __init__(
        self,
        scenes: ScenePictures,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        batch_size: int,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._scenes, self._batch_size, self._seed, self._shard = scenes, batch_size, seed, shard
        texts = sorted({text for captions in scenes.captions for text in captions})
        self._row_of = {text: row for row, text in enumerate(texts)}
        self._ids, self.share_cut = _encoded(texts, tokenizer, max_tokens)
        self._order = Mixture([np.arange(len(scenes))], [1.0], seed)

    def at(self, step: int) -> PairBatch:
        """Returns the batch of `step`; raises ConfigError when there are not enough distinct captions."""
        index, count = self._shard
        pairs = self._distinct(step, self._batch_size * count)
        pairs = pairs[index * self._batch_size : (index + 1) * self._batch_size]
        pictures = self._scenes.pictures[[picture for picture, _ in pairs]]
        rows = [self._row_of[text] for _, text in pairs]
        return PairBatch(
            pictures=torch.from_numpy(pictures),
            ids=torch.from_numpy(self._ids[rows].astype(np.int64)),
        )

    def prefetch(self, start_step: int, end_step: int) -> Iterator[PairBatch]:
        """Returns the batches of start_step .. end_step - 1 in order, made ahead by one thread."""
        return made_ahead(self.at, start_step, end_step)

    def _distinct(self, step: int, count: int) -> list[tuple[int, str]]:
        """`count` pictures with a caption each."""
        rng = np.random.default_rng((self._seed, 4, step))
        pairs: list[tuple[int, str]] = []
        scenes, chosen, known = set[int](), set[str](), set[str]()
        for first in self._order.take(step * count, count).tolist():
            for picture in (first, *rng.integers(len(self._scenes), size=_REPLACEMENTS).tolist()):
                own = self._scenes.captions[picture]
                scene = int(self._scenes.scene_seeds[picture])
                free = [text for text in own if text not in known]
                if scene in scenes or not free or not chosen.isdisjoint(own):
                    continue
                text = free[int(rng.integers(len(free)))]
                pairs.append((picture, text))
                scenes.add(scene)
                chosen.add(text)
                known.update(own)
                break
            else:
                raise ConfigError(
                    f"no {count} of the {len(self._scenes)} pictures have captions of their own; found {len(pairs)}: "
                    "lower training.batch_size (or contrastive.retrieval_pool) or collect more scenes"
                )
        return pairs


def _encoded(
    texts: list[str], tokenizer: Tokenizer, max_tokens: int
) -> tuple[NDArray[np.int32], float]:
    """Returns (texts, max_tokens) ids, and the share of texts that were too long."""
    bos, eos, pad = (tokenizer.token_to_id(name) for name in (BOS, EOS, PAD))
    ids = np.full((len(texts), max_tokens), pad, np.int32)
    num_cut = 0
    for row, encoding in zip(ids, tokenizer.encode_batch(texts), strict=True):
        words = encoding.ids[: max_tokens - 2]
        num_cut += len(words) < len(encoding.ids)
        row[: len(words) + 2] = [bos, *words, eos]
    return ids, num_cut / max(1, len(texts))
