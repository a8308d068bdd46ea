"""Masks for the mask codec: gathered from labelled scenes, drawn by numbers, and mixed into training batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla.data.mask_crops import crop_mask, mask_box
from vla.data.prefetch import made_ahead
from vla.data.procedural_masks import Mask, procedural_masks
from vla.data.scene_rows import SceneRow
from vla.errors import DatasetError
from vla.models.mask_codec import CODEC_SIDE

HELD_OUT_SEED = 1_000_000  # scenes and masks with this seed or a larger one are never trained on
_LEAST_PIXELS = 4  # below that a mask in a scene is a speck at another object's edge


@dataclass(frozen=True, kw_only=True)
class LabelledMask:
    """A mask at the resolution of its picture.

    Attributes:
        mask: (H, W), with at least one pixel.
        box: y_min, x_min, y_max, x_max around it, in shares of the picture.
        shape: of what it shows, such as "cube".
        picture: number of the picture it is in; masks of one picture are not independent.
        is_clear: whether enough of it shows to be known; only of those a question asks for the mask.
    """

    mask: Mask
    box: tuple[float, float, float, float]
    shape: str
    picture: int
    is_clear: bool = True

    @property
    def num_pixels(self) -> int:
        """Pixels inside."""
        return int(self.mask.sum())


@dataclass(kw_only=True)
class MaskBatch:
    """What one step sees.

    Attributes:
        masks: (B, 64, 64) float32 in [0, 1], each in its box.
        step: number of the step.
    """

    masks: Tensor
    step: int

    def to(self, device: torch.device) -> MaskBatch:
        """Returns the batch on `device`."""
        return MaskBatch(masks=self.masks.to(device, non_blocking=True), step=self.step)


class MaskBatches:
    """Masks of scenes and drawn ones, mirrored and turned at random; `at(step)` is a pure function of (seed, step).

    Args:
        of_scenes: (N, 64, 64) uint8 0..255, masks in their boxes; N may be 0.
        drawn: (M, 64, 64) likewise, drawn by numbers; M may be 0 where N is not.
        batch_size: masks a step.
        drawn_fraction: share of a batch that is drawn; all or nothing where there is one kind only.
        seed: of the choice.

    Raises:
        DatasetError: there are no masks at all.
    """

    def __init__(
        self,
        of_scenes: NDArray[np.uint8],
        drawn: NDArray[np.uint8],
        *,
        batch_size: int,
        drawn_fraction: float,
        seed: int = 0,
    ) -> None:
        if not len(of_scenes) and not len(drawn):
            raise DatasetError("no masks to train on; give scenes or let some be drawn")
        self._of_scenes, self._drawn, self._seed = of_scenes, drawn, seed
        share = drawn_fraction if len(of_scenes) else 1.0
        self._num_drawn = round(batch_size * share) if len(drawn) else 0
        self._num_taken = batch_size - self._num_drawn

    def at(self, step: int) -> MaskBatch:
        """Returns the batch of a step."""
        rng = np.random.default_rng((self._seed, step))
        chosen = np.concatenate(
            [
                pool[rng.integers(max(len(pool), 1), size=count)]
                for pool, count in (
                    (self._of_scenes, self._num_taken),
                    (self._drawn, self._num_drawn),
                )
            ]
        )
        for turn in range(8):  # an eighth of the batch each way
            chosen[turn::8] = _turned(chosen[turn::8], turn)
        return MaskBatch(masks=torch.from_numpy(chosen).float() / 255.0, step=step)

    def prefetch(self, start_step: int, end_step: int) -> Iterator[MaskBatch]:
        """Yields the batches of steps start .. end - 1, made ahead by one thread."""
        return made_ahead(self.at, start_step, end_step)


def gather_masks(
    rows: Iterable[SceneRow], limit: int | None = None
) -> tuple[list[LabelledMask], list[LabelledMask]]:
    """Returns the masks to train on and the held-out ones; reading ends when there are `limit` of either."""
    parts: tuple[list[LabelledMask], list[LabelledMask]] = ([], [])
    for number, row in enumerate(rows):
        part = parts[row.scene_seed >= HELD_OUT_SEED]
        if limit is not None and len(part) >= limit:
            break
        part += [
            LabelledMask(
                mask=item.mask,
                box=mask_box(item.mask),
                shape=item.shape,
                picture=number,
                is_clear=item.is_clear,
            )
            for item in row.objects
            if item.mask.sum() >= _LEAST_PIXELS
        ]
    return parts[0][:limit], parts[1][:limit]


def drawn_masks(seed: int, count: int) -> list[LabelledMask]:
    """Returns procedural masks, every one a picture of its own; seeds from 1,000,000 on are for measuring."""
    return [
        LabelledMask(mask=mask, box=mask_box(mask), shape=shape.value, picture=number)
        for number, (shape, mask) in enumerate(procedural_masks(seed, count))
    ]


def cropped(masks: Iterable[LabelledMask]) -> NDArray[np.uint8]:
    """Returns every mask in its box: (N, 64, 64) uint8 0..255."""
    crops = [np.rint(crop_mask(m.mask, m.box) * 255.0).astype(np.uint8) for m in masks]
    return np.array(crops, np.uint8).reshape(-1, CODEC_SIDE, CODEC_SIDE)


def _turned(masks: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """One of the eight ways to turn and mirror squares (N, 64, 64)."""
    turned = np.rot90(masks, turn % 4, axes=(1, 2))
    return turned.transpose(0, 2, 1) if turn >= 4 else turned
