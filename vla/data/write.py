"""Writes a LeRobotDataset v3 that stock lerobot opens, and that a kill at any moment leaves whole.

Why not lerobot's own writer (0.6.1): its parquet file has no footer until the end, so a kill loses
every episode of the open file, and it writes about 30 frames a second. Here each finished episode is
an atomic directory (`vla.data.staging`), `finalize` merges those into data files, and
`meta/info.json`, renamed into place last, is the one moment at which the dataset grows.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from itertools import batched
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla.data import layout as names
from vla.data import video
from vla.data.atomic import replacing, write_json
from vla.data.layout import DatasetLayout, ImageStorage, nth_file
from vla.data.manifest import Manifest
from vla.data.staging import (
    StagedEpisode,
    discard_staged,
    read_staged,
    rejected_keys,
    staged_keys,
)
from vla.data.summary import image_summary, vector_summary
from vla.data.tables import Row, column_array, episode_rows, task_table, write_frames
from vla.errors import DatasetError

_MB = 1 << 20
_EPISODES_AT_ONCE = 2000  # merged in one step; bounds the memory that their statistics take


class DatasetWriter:
    """Owns one dataset directory while it grows; use as a context manager.

    Episodes are known by a `key`, any number the caller chooses, and appear in the dataset in the
    order of their keys within one call of `finalize`.
    """

    def __init__(self, root: Path, layout: DatasetLayout, identity: dict[str, Any]) -> None:
        self.root, self.layout, self._identity = root, layout, identity
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Opens or creates the dataset.

        Raises:
            DatasetError: another process writes to it, it was recorded under another `identity`, or
                it was not made by this writer.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.root)
        try:
            self.manifest = Manifest.open(self.root, self.layout, self._identity)
            discard_staged(self.root, {entry["key"] for entry in self.manifest.episodes})
            self._drop_uncommitted_files()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def finished(self) -> set[int]:
        """Keys of all episodes in the dataset or waiting to be merged."""
        return {entry["key"] for entry in self.manifest.episodes} | staged_keys(self.root)

    @property
    def rejected(self) -> dict[int, str]:
        """Keys and reasons of attempts that gave no episode."""
        return self.manifest.rejected | rejected_keys(self.root)

    def finalize(self) -> int:
        """Merges all waiting episodes into the dataset; returns how many it now holds."""
        waiting = sorted(staged_keys(self.root))
        if not waiting and not self.manifest.episodes:
            raise DatasetError(f"no finished episode in {self.root}; nothing to write")
        for keys in batched(waiting, _EPISODES_AT_ONCE):
            self._merge(keys)
        return len(self.manifest.episodes)

    def _merge(self, keys: Sequence[int]) -> None:
        staged = [read_staged(self.root, key) for key in keys]
        old, grown = self.manifest, self.manifest.extended(staged, self.rejected)
        rows = episode_rows(
            staged, grown.tasks, first_episode=len(old.episodes), first_frame=old.num_frames
        )
        self._write_data(staged, rows, grown)
        if self.layout.storage is ImageStorage.VIDEO:
            self._write_videos(staged, rows, grown)
        self._write_metadata(rows, grown)
        self.manifest = grown
        Manifest.drop_all_but(self.root, len(grown.episodes))
        discard_staged(self.root, {*keys, *grown.rejected})

    def _write_data(
        self, staged: Sequence[StagedEpisode], rows: list[Row], grown: Manifest
    ) -> None:
        sizes = [episode.data_path.stat().st_size for episode in staged]
        for part in _parts(sizes, names.DATA_FILE_MB * _MB):
            place = nth_file(grown.num_data_files)
            with replacing(self.root / names.DATA_PATH.format(**place)) as path:
                write_frames(path, self.layout, staged[part], rows[part], grown.tasks)
            for row in rows[part]:
                row |= {f"data/{name}": value for name, value in place.items()}
            grown.num_data_files += 1

    def _write_videos(
        self, staged: Sequence[StagedEpisode], rows: list[Row], grown: Manifest
    ) -> None:
        cameras = self.layout.image_keys
        sizes = [sum(e.video_path(name).stat().st_size for name in cameras) for e in staged]
        for part in _parts(sizes, names.VIDEO_FILE_MB * _MB):
            place = nth_file(grown.num_video_files)
            lengths = [episode.num_frames for episode in staged[part]]
            ends_s = np.cumsum(lengths) / self.layout.fps
            for name, key in cameras.items():
                sources = [episode.video_path(name) for episode in staged[part]]
                with replacing(self.root / names.VIDEO_PATH.format(video_key=key, **place)) as path:
                    video.concatenate(sources, lengths, path, self.layout.fps)
                for row, length, end_s in zip(rows[part], lengths, ends_s.tolist(), strict=True):
                    row |= {f"videos/{key}/{entry}": value for entry, value in place.items()}
                    row[f"videos/{key}/from_timestamp"] = end_s - length / self.layout.fps
                    row[f"videos/{key}/to_timestamp"] = end_s
            grown.num_video_files += 1

    def _write_metadata(self, rows: list[Row], grown: Manifest) -> None:
        place = nth_file(grown.num_episode_files)
        for row in rows:
            row |= {f"meta/episodes/{name}": value for name, value in place.items()}
        with replacing(self.root / names.EPISODES_PATH.format(**place)) as path:
            pq.write_table(pa.Table.from_pylist(rows), path, compression="snappy")
        grown.num_episode_files += 1
        with replacing(self.root / names.TASKS_PATH) as path:
            pq.write_table(task_table(grown.tasks), path)
        write_json(self.root / names.STATS_PATH, self._dataset_summary(grown), indent=4)
        grown.write(self.root)
        info = self.layout.info(
            episodes=len(grown.episodes),
            frames=grown.num_frames,
            tasks=len(grown.tasks),
            video_info=self._video_info(),
        )
        write_json(self.root / names.INFO_PATH, info, indent=4)  # now the new episodes count

    def _dataset_summary(self, grown: Manifest) -> dict[str, Any]:
        """Returns exact statistics; lerobot's own are a weighted mean of per-episode quantiles."""
        places = [nth_file(number) for number in range(grown.num_data_files)]
        files = [self.root / names.DATA_PATH.format(**place) for place in places]
        summary = {
            key: image_summary(grown.histograms[name], grown.num_frames)
            for name, key in self.layout.image_keys.items()
        }
        for name in [*self.layout.vectors, *names.INDEX_COLUMNS]:
            columns = [pq.read_table(path, columns=[name]).column(0) for path in files]
            summary[name] = vector_summary(np.concatenate([column_array(c) for c in columns]))
        return summary

    def _video_info(self) -> dict[str, Any] | None:
        if self.layout.storage is ImageStorage.IMAGE:
            return None
        height, width = next(iter(self.layout.cameras.values()))
        return video.describe(height, width, self.layout.fps)

    def _drop_uncommitted_files(self) -> None:
        """Removes what an interrupted merge left behind; lerobot reads every parquet it finds."""
        manifest = self.manifest
        kept = {names.DATA_PATH.format(**nth_file(i)) for i in range(manifest.num_data_files)}
        kept |= {
            names.EPISODES_PATH.format(**nth_file(i)) for i in range(manifest.num_episode_files)
        }
        for key in self.layout.image_keys.values():
            places = (nth_file(i) for i in range(manifest.num_video_files))
            kept |= {names.VIDEO_PATH.format(video_key=key, **place) for place in places}
        for folder in ("data", "meta/episodes", "videos"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_file() and path.relative_to(self.root).as_posix() not in kept:
                    path.unlink()


def _parts(sizes: Sequence[int], limit: float) -> list[slice]:
    """Returns runs of positions whose sizes add up to at most `limit`; a larger one stays alone."""
    starts, total = [0], 0
    for position, size in enumerate(sizes):
        if position > starts[-1] and total + size > limit:
            starts.append(position)
            total = 0
        total += size
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def take_lock(root: Path) -> int:
    """Returns a descriptor that keeps other writers out of `root` until it is closed or this process ends."""
    descriptor = os.open(root / ".writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise DatasetError(
            f"another process is writing to {root}; wait for it or choose another root"
        ) from None
    return descriptor
