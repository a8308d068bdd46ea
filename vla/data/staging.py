"""Finished episodes on their way into a dataset: one directory each, whole or absent, whatever gets killed when."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from vla.data import video
from vla.data.atomic import replacing_directory, write_json
from vla.data.layout import INDEX_COLUMNS, DatasetLayout, ImageStorage
from vla.data.summary import image_histogram, image_summary, vector_summary
from vla.errors import DatasetError
from vla.types import ImageArray

STAGING = "staging"
_EPISODE = re.compile(r"episode-(\d+)$")
_REJECTED = re.compile(r"rejected-(\d+)\.json$")


@dataclass(kw_only=True)
class Episode:
    """One demonstration in memory.

    Attributes:
        images: camera name to (frames, H, W, 3) uint8.
        vectors: feature name to (frames, width) float32.
        record: JSON values remembered with the episode, e.g. its seed.
    """

    images: dict[str, ImageArray]
    vectors: dict[str, NDArray[np.float32]]
    task: str
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        return len(next(iter(self.vectors.values())))


@dataclass(frozen=True, kw_only=True)
class StagedEpisode:
    """A finished episode on disk, not yet part of the dataset."""

    key: int
    directory: Path
    num_frames: int
    task: str
    record: dict[str, Any]
    summary: dict[str, dict[str, Any]]
    histograms: dict[str, NDArray[np.int64]]

    @property
    def data_path(self) -> Path:
        return self.directory / "frames.parquet"

    def video_path(self, camera: str) -> Path:
        return self.directory / f"{camera}.mp4"


def stage_episode(root: Path, layout: DatasetLayout, key: int, episode: Episode) -> None:
    """Puts `episode` on disk under `key`; returns when it is safe from a power cut.

    Raises:
        DatasetError: the episode does not have the features of `layout`, or a number is not finite.
    """
    _check(layout, key, episode)
    histograms = {name: image_histogram(episode.images[name]) for name in layout.cameras}
    with replacing_directory(_directory(root, key)) as directory:
        table = _table(layout, episode)
        pq.write_table(
            table,
            directory / "frames.parquet",
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        )
        if layout.storage is ImageStorage.VIDEO:
            for name in layout.cameras:
                video.encode(episode.images[name], directory / f"{name}.mp4", layout.fps)
        described = {
            "num_frames": episode.num_frames,
            "task": episode.task,
            "record": episode.record,
            "summary": _summary(layout, episode, histograms),
            "histograms": {name: histogram.tolist() for name, histogram in histograms.items()},
        }
        (directory / "episode.json").write_text(json.dumps(described), encoding="utf-8")


def stage_rejection(root: Path, key: int, reason: str) -> None:
    """Remembers that attempt `key` gave no episode, so that a resumed run does not try it again."""
    write_json(root / STAGING / f"rejected-{key:08d}.json", {"reason": reason}, indent=None)


def staged_keys(root: Path) -> set[int]:
    """Returns the keys of all finished episodes waiting in `root`."""
    return set(_numbered(root, _EPISODE))


def rejected_keys(root: Path) -> dict[int, str]:
    """Returns key and reason of every attempt that gave no episode."""
    found = _numbered(root, _REJECTED)
    return {
        key: json.loads(path.read_text(encoding="utf-8"))["reason"] for key, path in found.items()
    }


def read_staged(root: Path, key: int) -> StagedEpisode:
    """Returns what is known about a waiting episode; its frames stay on disk."""
    directory = _directory(root, key)
    described = json.loads((directory / "episode.json").read_text(encoding="utf-8"))
    histograms = {
        name: np.asarray(rows, np.int64) for name, rows in described.pop("histograms").items()
    }
    return StagedEpisode(key=key, directory=directory, histograms=histograms, **described)


def discard_staged(root: Path, keys: set[int] | None = None) -> None:
    """Removes waiting episodes and notes of rejection with the given keys (all when None), and torn leftovers."""
    staging = root / STAGING
    if not staging.is_dir():
        return
    for pattern in (_EPISODE, _REJECTED):
        for key, path in _numbered(root, pattern).items():
            if keys is None or key in keys:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in staging.glob(".*"):  # written by a process that was killed
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if not any(staging.iterdir()):
        staging.rmdir()


def _directory(root: Path, key: int) -> Path:
    return root / STAGING / f"episode-{key:08d}"


def _numbered(root: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    staging = root / STAGING
    names = staging.iterdir() if staging.is_dir() else ()
    matches = ((pattern.match(path.name), path) for path in names)
    return {int(match.group(1)): path for match, path in matches if match}


def _check(layout: DatasetLayout, key: int, episode: Episode) -> None:
    if set(episode.images) != set(layout.cameras) or set(episode.vectors) != set(layout.vectors):
        raise DatasetError(
            f"episode {key} has {sorted(episode.images)} and {sorted(episode.vectors)}; "
            f"the dataset needs {sorted(layout.cameras)} and {sorted(layout.vectors)}"
        )
    length = episode.num_frames
    expected: dict[str, tuple[int, ...]] = {
        name: (length, *size, 3) for name, size in layout.cameras.items()
    }
    expected |= {name: (length, len(names)) for name, names in layout.vectors.items()}
    for name, values in {**episode.images, **episode.vectors}.items():
        if values.shape != expected[name] or not length:
            raise DatasetError(
                f"episode {key}: {name} has shape {values.shape}, expected {expected[name]}, at least one frame"
            )
    for name, values in episode.vectors.items():
        if not np.isfinite(values).all():
            frame = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DatasetError(
                f"episode {key}, frame {frame}: {name} is not finite; correct what recorded it"
            )


def _table(layout: DatasetLayout, episode: Episode) -> pa.Table:
    """Returns the rows of a data file; the columns that number the episode within the dataset are zero for now."""
    length = episode.num_frames
    columns: dict[str, Any] = {}
    if layout.storage is ImageStorage.IMAGE:
        for name, key in layout.image_keys.items():
            pictures = [
                {"bytes": _png(image), "path": f"frame-{i:06d}.png"}
                for i, image in enumerate(episode.images[name])
            ]
            columns[key] = pictures
    for key, names in layout.vectors.items():
        flat = np.ascontiguousarray(episode.vectors[key], np.float32).reshape(-1)
        columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(flat), len(names))
    frames = np.arange(length)
    zeros = np.zeros(length, np.int64)
    numbers = {"timestamp": (frames / layout.fps).astype(np.float32), "frame_index": frames}
    columns |= {key: numbers.get(key, zeros) for key in INDEX_COLUMNS}
    schema = layout.arrow_schema()
    return pa.table([pa.array(columns[entry.name], entry.type) for entry in schema], schema=schema)


def _summary(
    layout: DatasetLayout, episode: Episode, histograms: dict[str, NDArray[np.int64]]
) -> dict[str, dict[str, Any]]:
    length = episode.num_frames
    frames = np.arange(length)
    pictures = {
        key: image_summary(histograms[name], length) for name, key in layout.image_keys.items()
    }
    numbers = {key: vector_summary(episode.vectors[key]) for key in layout.vectors}
    times = {
        "timestamp": vector_summary(frames / layout.fps),
        "frame_index": vector_summary(frames),
    }
    return pictures | numbers | times


def _png(image: ImageArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, "PNG", compress_level=1
    )  # 6 halves the size of smooth pictures at twice the time
    return buffer.getvalue()
