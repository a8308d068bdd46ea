"""What every patch of a picture shows: the name of an object and the box of the whole of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vla.data.mixture import Mixture
from vla.data.prefetch import made_ahead
from vla.data.scene_pictures import HELD_OUT_SEED, STILL, square
from vla.data.scene_rows import SceneRow
from vla.errors import DatasetError

UNKNOWN, NOTHING = -1, 0  # names of patches: not to be learnt from, and the table; objects follow
_LEAST_COVERAGE = 0.12  # share of a patch that an object must fill to be what the patch shows
_LEAST_MAJORITY = 0.6  # and of what objects fill of the patch


@dataclass(frozen=True, kw_only=True)
class PatchTargets:
    """Pictures of one split. N pictures, P patches each, numbered row by row.

    Attributes:
        pictures: (N, 3, S, S) uint8.
        names: (N, P) UNKNOWN, NOTHING, or 1 + the number of the object's name.
        boxes: (N, P, 4) y_min, x_min, y_max, x_max in shares of the picture; 0 where there is no object.
    """

    pictures: NDArray[np.uint8]
    names: NDArray[np.int16]
    boxes: NDArray[np.float32]


@dataclass(kw_only=True)
class PatchBatch:
    """What one step sees; see `PatchTargets`."""

    pictures: UInt8[Tensor, "batch 3 rows columns"]
    names: Int[Tensor, "batch patches"]
    boxes: Float[Tensor, "batch patches 4"]

    def to(self, device: torch.device) -> PatchBatch:
        """Returns the batch on `device`."""
        return PatchBatch(
            pictures=self.pictures.to(device),
            names=self.names.to(device),
            boxes=self.boxes.to(device),
        )


class PatchBatches:
    """Batches by step number, an endless shuffle of the pictures; `at(step)` is a pure function of (seed, step)."""

    def __init__(self, targets: PatchTargets, *, batch_size: int, seed: int = 0) -> None:
        self._targets, self._batch_size = targets, batch_size
        self._order = Mixture([np.arange(len(targets.pictures))], [1.0], seed)

    @property
    def len_epoch(self) -> int:
        """Batches in one epoch, the last shared with the next."""
        return -(-len(self._targets.pictures) // self._batch_size)

    def at(self, step: int) -> PatchBatch:
        """Returns the batch of `step`."""
        chosen = self._order.take(step * self._batch_size, self._batch_size)
        return PatchBatch(
            pictures=torch.from_numpy(self._targets.pictures[chosen]),
            names=torch.from_numpy(self._targets.names[chosen]).long(),
            boxes=torch.from_numpy(self._targets.boxes[chosen]),
        )

    def prefetch(self, start_step: int, end_step: int) -> Iterator[PatchBatch]:
        """Returns the batches of start_step .. end_step - 1 in order, made ahead by one thread."""
        return made_ahead(self.at, start_step, end_step)


def gather_patch_targets(
    rows: Iterable[SceneRow], *, image_size: int, patch_size: int
) -> tuple[PatchTargets, PatchTargets, list[str]]:
    """Returns the still pictures to train on, the held-out ones, and the names of the objects in them.

    Raises:
        DatasetError: one of the two would be empty.
    """
    stills = [row for row in rows if row.kind == STILL]
    words = sorted({item.name for row in stills for item in row.objects})
    parts: list[PatchTargets] = []
    for is_held_out in (False, True):
        split = [row for row in stills if (row.scene_seed >= HELD_OUT_SEED) == is_held_out]
        if not split:
            where = f"from {HELD_OUT_SEED:,} on" if is_held_out else f"below {HELD_OUT_SEED:,}"
            raise DatasetError(f"no picture has a scene seed {where}; collect scenes of both")
        shown = [square(row.frames[0], image_size).transpose(2, 0, 1) for row in split]
        names, boxes = zip(
            *(patch_targets(row, words, image_size // patch_size) for row in split), strict=True
        )
        parts.append(
            PatchTargets(pictures=np.stack(shown), names=np.stack(names), boxes=np.stack(boxes))
        )
    return parts[0], parts[1], words


def patch_targets(
    row: SceneRow, words: Sequence[str], grid: int
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Returns names (P,) and boxes (P, 4) of the grid * grid patches of a still; see `PatchTargets`.

    A patch that several objects share, or that shows one which cannot be known for sure, is UNKNOWN.
    """
    names = np.full(grid * grid, NOTHING, np.int16)
    boxes = np.zeros((grid * grid, 4), np.float32)
    if not row.objects:
        return names, boxes
    masks = torch.from_numpy(np.stack([item.mask for item in row.objects]))
    coverage = F.adaptive_avg_pool2d(masks.float()[None], grid)[0].flatten(1).numpy()
    owner, share, whole = coverage.argmax(axis=0), coverage.max(axis=0), coverage.sum(axis=0)
    classes = np.array(
        [words.index(item.name) + 1 if item.is_clear else UNKNOWN for item in row.objects], np.int16
    )
    is_shown = (share >= _LEAST_COVERAGE) & (share >= _LEAST_MAJORITY * whole)
    names[:] = np.where(is_shown, classes[owner], np.where(whole > 0, UNKNOWN, NOTHING))
    boxes[:] = np.array([item.box for item in row.objects], np.float32)[owner]
    boxes[names <= NOTHING] = 0.0
    return names, boxes
