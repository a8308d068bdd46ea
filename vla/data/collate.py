"""Training batches by step number: gather from memory maps, nothing tokenised or normalised twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla.data.chunks import ActionChunks
from vla.data.jitter import ColorJitterConfig, jitter_colors
from vla.data.lerobot import Frames
from vla.data.mixture import Mixture, split_episodes
from vla.data.prefetch import made_ahead
from vla.data.stats import ActionStatistics, StateStatistics
from vla.data.unknown_words import variants
from vla.errors import ConfigError, DatasetError
from vla.tokenizers.fast import FastTokenizer
from vla.types import ActionSpec

_TEXT_VARIANTS = 32  # of every instruction, where words are made up

TextEncoder = Callable[[Sequence[str]], tuple[NDArray[np.int64], NDArray[np.bool_]]]


class Split(Enum):
    """Which episodes."""

    TRAIN = "train"
    VAL = "val"


@dataclass(kw_only=True)
class TrainBatch:
    """What one optimiser step sees. B samples, V views, T text tokens, K actions in a chunk, A numbers an action.

    Attributes:
        images: (B, V, 3, H, W) uint8; channels lie innermost in memory, which convolutions read fastest.
        text_ids: (B, T) int64, right-padded.
        text_valid: (B, T) bool, False on padding.
        state: (B, S) float32, normalised.
        action_bins: (B, K, A) int64, 0..255.
        action_valid: (B, K) bool, False on actions the loss shall skip.
        actions: (B, K, A) float32 in physical units.
        normalized: (B, K, A) float32, the same in [-1, 1]: what continuous heads learn.
        fast_tokens: (B, L) int64, the chunk as FAST's tokens, -1 after each row's last; None without that tokenizer.
            A chunk is coded as a whole: `action_valid` does not count there.
        grounding: (B, 7) float32 where the dataset carries it (see `vla.data.layout.GROUNDING_NAMES`), else None.
    """

    images: Tensor
    text_ids: Tensor
    text_valid: Tensor
    state: Tensor
    action_bins: Tensor
    action_valid: Tensor
    actions: Tensor
    normalized: Tensor
    grounding: Tensor | None
    fast_tokens: Tensor | None = None

    def to(self, device: torch.device) -> TrainBatch:
        """Returns the batch on `device`; itself when it is there already."""
        if self.images.device == device:
            return self
        moved = TrainBatch(**vars(self))
        for name, value in vars(self).items():
            if value is not None:
                setattr(moved, name, value.to(device, non_blocking=True))
        return moved


@dataclass(kw_only=True)
class BatchConfig:
    """How samples are drawn and what is done to them."""

    weights: list[float] | None = None  # passes per epoch over each dataset; null is one each
    val_fraction: float = 0.05  # share of scenes held out for validation
    # learn to rest after an episode's end; false leaves those actions out of the loss
    train_past_end: bool = True
    jitter: ColorJitterConfig | None = None  # colours only, training only
    unknown_words: float = 0.0  # share of an instruction's words made up anew, training only


class Batches:
    """Batches of one split over one or several datasets; `at(step)` is a pure function of (seed, step).

    Training walks an endless exact shuffle (`vla.data.mixture`): resuming at a step needs only its number. Validation
    walks one fixed shuffle from its start and ends with a smaller batch.

    Args:
        frames: opened datasets, alike in cameras, picture size and widths.
        spec: which action dimensions are relative (they rest at 0) and which absolute (they rest at their last value).
        tokenizer: instructions to token rows; called once with all texts, not again for a batch. A ConfigError says
            that a text is too long.
        chunk_length: actions per sample, from the observation's own on.
        fast: codes chunks for models that decode with it.

    Raises:
        DatasetError: datasets do not fit each other, or the split has no frames.
    """

    def __init__(
        self,
        frames: Sequence[Frames],
        action_statistics: ActionStatistics,
        state_statistics: StateStatistics,
        tokenizer: TextEncoder,
        *,
        spec: ActionSpec,
        chunk_length: int,
        batch_size: int,
        seed: int = 0,
        split: Split = Split.TRAIN,
        cfg: BatchConfig | None = None,
        fast: FastTokenizer | None = None,
    ) -> None:
        cfg = cfg or BatchConfig()
        if not frames or chunk_length < 1 or batch_size < 1:
            raise ConfigError(
                "batches need at least one dataset, chunk_length >= 1 and batch_size >= 1"
            )
        _check_alike(frames)
        self._frames, self._cfg, self._seed = list(frames), cfg, seed
        self.batch_size, self.chunk_length, self.split = batch_size, chunk_length, split
        self._offsets = np.cumsum([0, *(len(f) for f in frames)])
        self._chunks = ActionChunks(frames, action_statistics, spec, chunk_length)
        self._state = state_statistics.normalize(np.concatenate([f.state for f in frames]))
        self._grounding = _grounding(frames)
        share = cfg.unknown_words if split is Split.TRAIN else 0.0
        self._num_variants = _TEXT_VARIANTS if share else 1
        self._text_rows, self._text_ids, self._text_valid = _tokenize(
            frames, tokenizer, share, self._num_variants, seed
        )
        pools = self._pools()
        self._order = Mixture(pools, cfg.weights or [1.0] * len(frames), seed)
        self._fast_rows = self._fast_tokens = None
        if fast is not None:
            known = np.concatenate(pools)
            self._fast_rows = np.zeros(len(self._chunks), np.int64)
            self._fast_rows[known] = np.arange(len(known))
            self._fast_tokens = self._chunks.fast_tokens(fast, known)

    @property
    def num_samples(self) -> int:
        """Frames in one epoch of this split."""
        return len(self._order)

    @property
    def len_epoch(self) -> int:
        """Batches in one epoch, the last one smaller or, in training, shared with the next epoch."""
        return -(-self.num_samples // self.batch_size)

    def at(self, step: int) -> TrainBatch:
        """Returns the batch of `step`, counted from 0 over all epochs."""
        if self.split is Split.TRAIN:
            samples = self._order.take(step * self.batch_size, self.batch_size)
        else:
            start = step % self.len_epoch * self.batch_size
            samples = self._order.take(start, min(self.batch_size, self.num_samples - start))
        batch = self._gather(samples, self._text_rows[samples] + self._variants(step, len(samples)))
        jitter = self._cfg.jitter
        if jitter is not None and jitter.is_on and self.split is Split.TRAIN:
            generator = torch.Generator().manual_seed(self._jitter_seed(step))
            batch.images = jitter_colors(batch.images, jitter, generator)
        return batch

    def prefetch(self, start_step: int, end_step: int, depth: int = 3) -> Iterator[TrainBatch]:
        """Returns the batches of start_step .. end_step - 1 in order, `depth` ahead, made by one thread."""
        return made_ahead(self.at, start_step, end_step, depth)

    def _variants(self, step: int, count: int) -> NDArray[np.int64] | int:
        """Which variant of its instruction each sample is said."""
        if self._num_variants == 1:
            return 0
        return np.random.default_rng((self._seed, 6, step)).integers(self._num_variants, size=count)

    def _jitter_seed(self, step: int) -> int:
        return int(np.random.SeedSequence((self._seed, 3, step)).generate_state(1)[0])

    def _gather(self, samples: NDArray[np.int64], text: NDArray[np.int64]) -> TrainBatch:
        chunks = self._chunks.at(samples)
        valid = np.ones_like(chunks.is_past) if self._cfg.train_past_end else ~chunks.is_past
        grounding = None if self._grounding is None else torch.from_numpy(self._grounding[samples])
        return TrainBatch(
            images=self._images(samples),
            text_ids=torch.from_numpy(self._text_ids[text]),
            text_valid=torch.from_numpy(self._text_valid[text]),
            state=torch.from_numpy(self._state[samples]),
            action_bins=torch.from_numpy(chunks.bins),
            action_valid=torch.from_numpy(valid),
            actions=torch.from_numpy(chunks.actions),
            normalized=torch.from_numpy(chunks.normalized),
            grounding=grounding,
            fast_tokens=self._coded(samples),
        )

    def _coded(self, samples: NDArray[np.int64]) -> Tensor | None:
        """FAST's tokens, as wide as the longest of these rows."""
        if self._fast_tokens is None or self._fast_rows is None:
            return None
        tokens = self._fast_tokens[self._fast_rows[samples]]
        longest = int((tokens >= 0).sum(axis=1).max())
        return torch.from_numpy(tokens[:, :longest].astype(np.int64))

    def _images(self, samples: NDArray[np.int64]) -> Tensor:
        cameras = list(self._frames[0].images)
        height, width, _ = self._frames[0].images[cameras[0]].shape[1:]
        pictures = np.empty((len(samples), len(cameras), height, width, 3), np.uint8)
        dataset = np.searchsorted(self._offsets, samples, side="right") - 1
        for number in np.unique(dataset):
            chosen = dataset == number
            rows = samples[chosen] - self._offsets[number]
            for view, camera in enumerate(cameras):
                pictures[chosen, view] = self._frames[number].images[camera][rows]
        return torch.from_numpy(pictures).permute(0, 1, 4, 2, 3)

    def _with_offsets(self) -> list[tuple[Frames, int]]:
        return list(zip(self._frames, self._offsets[:-1].tolist(), strict=True))

    def _pools(self) -> list[NDArray[np.int64]]:
        """Returns the frame numbers of this split for each dataset."""
        pools = []
        for frames, offset in self._with_offsets():
            held_out = split_episodes(frames.scene, self._cfg.val_fraction, self._seed)
            wanted = held_out if self.split is Split.VAL else ~held_out
            pools.append(np.flatnonzero(wanted[frames.episode_index]) + offset)
        if not sum(len(pool) for pool in pools):
            raise DatasetError(
                f"no episode is left for {self.split.value} (val_fraction={self._cfg.val_fraction}, "
                f"{sum(f.num_episodes for f in self._frames)} episodes); collect more episodes or change val_fraction"
            )
        return pools


def _check_alike(frames: Sequence[Frames]) -> None:
    def shape(f: Frames) -> dict[str, object]:
        sizes = {camera: images.shape[1:] for camera, images in f.images.items()}
        return {
            "pictures": sizes,
            "action": f.actions.shape[1],
            "state": f.state.shape[1],
            "fps": f.fps,
        }

    first = shape(frames[0])
    sizes = set(map(str, first["pictures"].values()))  # type: ignore[attr-defined]
    if len(sizes) != 1:
        raise DatasetError(
            f"{frames[0].root}: cameras differ in size ({first['pictures']}); open it with image_size="
        )
    for other in frames[1:]:
        for name, value in shape(other).items():
            if value != first[name]:
                raise DatasetError(
                    f"{other.root} has {name} {value}, {frames[0].root} has {first[name]}; they cannot be mixed"
                )


def _grounding(frames: Sequence[Frames]) -> NDArray[np.float32] | None:
    """Returns grounding for all frames, or None unless every dataset has it."""
    parts = [f.environment_state for f in frames]
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None


def _tokenize(
    frames: Sequence[Frames], tokenizer: TextEncoder, share: float, num_variants: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the first text row of every frame, and ids and validity of all rows, as long as the longest.

    A frame's instruction has `num_variants` rows, one after the other, with a share of words made up in each.
    """
    tasks = [task for f in frames for task in f.tasks]
    first_rows = np.cumsum([0, *(len(f.tasks) for f in frames)])
    if share:

        def fits(text: str) -> bool:
            try:
                tokenizer([text])
            except ConfigError:
                return False
            return True

        tasks = [v for several in variants(tasks, share, num_variants, fits, seed) for v in several]
    ids, valid = tokenizer(tasks)
    longest = int(valid.sum(axis=1).max())
    ids, valid = ids[:, :longest], valid[:, :longest]
    rows = np.concatenate(
        [f.task_index + first for f, first in zip(frames, first_rows[:-1], strict=True)]
    )
    return rows * num_variants, ids, valid
