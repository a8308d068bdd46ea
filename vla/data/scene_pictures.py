"""Pictures and captions of labelled scenes, all at one size and in memory: what towers are trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vla.data.scene_rows import SceneRow
from vla.errors import DatasetError
from vla.models.vision.pictures import resize

STILL = "still"  # kind of a row that is one picture
HELD_OUT_SEED = 1_000_000  # scenes with this seed or a larger one are never trained on


@dataclass(frozen=True, kw_only=True)
class ScenePictures:
    """Pictures of one split.

    Attributes:
        pictures: (N, 3, S, S) uint8, stretched to squares; channels lie innermost in memory.
        captions: of every picture, at least one; see `whole_captions`.
        scene_seeds: (N,) scene that each picture shows; a scene may have several pictures.
    """

    pictures: NDArray[np.uint8]
    captions: list[list[str]]
    scene_seeds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pictures)


def gather_pictures(
    rows: Iterable[SceneRow], image_size: int
) -> tuple[ScenePictures, ScenePictures]:
    """Returns the still pictures with captions: those to train on, and the held-out ones.

    Raises:
        DatasetError: one of the two would be empty.
    """
    parts: dict[bool, tuple[list[NDArray[np.uint8]], list[list[str]], list[int]]] = {
        False: ([], [], []),
        True: ([], [], []),
    }
    for row in rows:
        if row.kind != STILL or not row.captions:
            continue
        pictures, captions, seeds = parts[row.scene_seed >= HELD_OUT_SEED]
        pictures.append(square(row.frames[0], image_size))
        captions.append(whole_captions(row))
        seeds.append(row.scene_seed)
    for is_held_out, (pictures, _, _) in parts.items():
        if not pictures:
            where = f"from {HELD_OUT_SEED:,} on" if is_held_out else f"below {HELD_OUT_SEED:,}"
            raise DatasetError(
                f"no picture has a scene seed {where}; collect scenes of both ranges, to train on and to measure with"
            )
    train, held_out = (_stacked(*parts[key]) for key in (False, True))
    return train, held_out


def whole_captions(row: SceneRow) -> list[str]:
    """Returns the captions that name everything coloured that is clearly seen, else the first alone.

    What names a part of a picture is true of many others; a contrastive loss would call it wrong of them.
    """
    names = Counter(item.name for item in row.objects if item.is_clear and item.color)
    whole = [
        text
        for text in row.captions
        if all(text.count(name) >= count for name, count in names.items())
    ]
    return whole or [row.captions[0]]


def square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Returns a picture (3, H, W) stretched to (S, S, 3), channels last."""
    resized = resize(torch.from_numpy(np.array(picture)), (size, size))
    return resized.permute(1, 2, 0).contiguous().numpy()


def _stacked(
    pictures: list[NDArray[np.uint8]], captions: list[list[str]], seeds: list[int]
) -> ScenePictures:
    return ScenePictures(
        pictures=np.stack(pictures).transpose(0, 3, 1, 2),
        captions=captions,
        scene_seeds=np.asarray(seeds, np.int64),
    )
