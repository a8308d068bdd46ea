"""Which object a patch shows: the questions by which a tower that never read a word is examined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from vla.data.scene_pictures import HELD_OUT_SEED, STILL, square
from vla.data.scene_rows import SceneRow
from vla.errors import DatasetError

_LEAST_COVERAGE = 0.15  # share of a patch that an object must fill
_LEAST_MAJORITY = 0.7  # of what objects fill of the patch, share of the one that names it


@dataclass(frozen=True, kw_only=True)
class LabelledPatches:
    """Held-out pictures, and patches that show one object.

    Attributes:
        pictures: (N, 3, S, S) uint8.
        picture: (P,) number of the picture of each patch.
        patch: (P,) number of the patch in its picture.
        labels: "color" and "shape": (P,) class of the object.
        names: of the classes.
    """

    pictures: NDArray[np.uint8]
    picture: NDArray[np.int64]
    patch: NDArray[np.int64]
    labels: dict[str, NDArray[np.int64]]
    names: dict[str, list[str]]


def label_patches(
    rows: Iterable[SceneRow], *, image_size: int, patch_size: int, max_pictures: int
) -> LabelledPatches:
    """Returns patches of the first `max_pictures` held-out pictures; raises DatasetError when none shows an object."""
    pictures: list[NDArray[np.uint8]] = []
    found: list[tuple[int, int, str, str]] = []
    for row in rows:
        if len(pictures) == max_pictures:
            break
        if row.scene_seed < HELD_OUT_SEED or row.kind != STILL or not row.objects:
            continue
        frame = row.frames[0]
        number = len(pictures)
        pictures.append(square(frame, image_size))
        masks = np.stack([item.mask for item in row.objects])
        for patch, owner in _owners(masks, image_size // patch_size):
            item = row.objects[owner]
            if item.color and item.is_clear:
                found.append((number, patch, item.color, item.shape))
    if not found:
        raise DatasetError(
            "no held-out picture shows an object; collect scenes with seeds from 1,000,000 on"
        )
    picture, patch, colors, shapes = zip(*found, strict=True)
    names = {"color": sorted(set(colors)), "shape": sorted(set(shapes))}
    labels = {
        kind: np.searchsorted(names[kind], np.asarray(values)).astype(np.int64)
        for kind, values in (("color", colors), ("shape", shapes))
    }
    return LabelledPatches(
        pictures=np.stack(pictures).transpose(0, 3, 1, 2),
        picture=np.asarray(picture, np.int64),
        patch=np.asarray(patch, np.int64),
        labels=labels,
        names=names,
    )


def _owners(masks: NDArray[np.bool_], grid: int) -> list[tuple[int, int]]:
    """(patch, object) of every patch that one object dominates; masks are (objects, H, W)."""
    coverage = F.adaptive_avg_pool2d(torch.from_numpy(masks).float()[None], grid)[0].flatten(1)
    share, owner = coverage.max(dim=0)
    is_clear = (share >= _LEAST_COVERAGE) & (share >= _LEAST_MAJORITY * coverage.sum(dim=0))
    return [(int(patch), int(owner[patch])) for patch in is_clear.nonzero()[:, 0]]
