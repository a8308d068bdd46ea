"""Writes a LeRobotDataset v3 that stock lerobot opens, and that a kill at any moment leaves whole.

Why not lerobot's own writer (0.6.1): its parquet file has no footer until the end, so a kill loses every episode of
the open file, and it writes about 30 frames a second. Here each finished episode is an atomic directory
(`vla.data.staging`), `finalize` merges those into data files, and `meta/info.json`, renamed into place last, is the one
moment at which the dataset grows.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vla.data import layout as names
from vla.data import video
from vla.data.atomic import replacing, write_json
from vla.data.layout import DatasetLayout, ImageStorage, nth_file
from vla.data.manifest import Manifest
from vla.data.staging import StagedEpisode, discard_staged, read_staged, rejected_keys, staged_keys
from vla.data.summary import image_summary, vector_summary
from vla.errors import DatasetError

_MB = 1 << 20


class DatasetWriter:
    """Owns one dataset directory while it grows; use as a context manager.

    Episodes are known by a `key`, any number the caller chooses, and appear in the dataset in the order of their keys
    within one call of `finalize`.
    """

    def __init__(self, root: Path, layout: DatasetLayout, identity: dict[str, Any]) -> None:
        self.root, self.layout, self._identity = root, layout, identity
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Opens or creates the dataset.

        Raises:
            DatasetError: another process writes to it, it was recorded under another `identity`, or it was not made
                by this writer.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(self.root)
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

    def finalize(self, keys: Iterable[int] | None = None) -> int:
        """Merges waiting episodes (those in `keys`, or all) into the dataset; returns how many it now holds."""
        wanted = staged_keys(self.root) if keys is None else staged_keys(self.root) & set(keys)
        if not wanted and self.manifest.episodes:
            return len(self.manifest.episodes)
        if not wanted:
            raise DatasetError(f"no finished episode in {self.root}; nothing to write")
        staged = [read_staged(self.root, key) for key in sorted(wanted)]
        grown = self.manifest.extended(staged, self.rejected)
        rows = _episode_rows(self.manifest, grown, staged)
        self._write_data(staged, rows, grown)
        if self.layout.storage is ImageStorage.VIDEO:
            self._write_videos(staged, rows, grown)
        self._write_metadata(rows, grown)
        self.manifest = grown
        Manifest.drop_all_but(self.root, len(grown.episodes))
        discard_staged(self.root, wanted | set(grown.rejected))
        return len(grown.episodes)

    def _write_data(self, staged: Sequence[StagedEpisode], rows: list[dict[str, Any]], grown: Manifest) -> None:
        sizes = [episode.data_path.stat().st_size for episode in staged]
        for group in _groups(sizes, names.DATA_FILE_MB * _MB):
            place = nth_file(grown.num_data_files)
            with replacing(self.root / names.DATA_PATH.format(**place)) as path:
                self._write_data_file(path, [staged[i] for i in group], [rows[i] for i in group], grown.tasks)
            for i in group:
                rows[i] |= {f"data/{name}": value for name, value in place.items()}
            grown.num_data_files += 1

    def _write_data_file(
        self, path: Path, staged: Sequence[StagedEpisode], rows: Sequence[dict[str, Any]], tasks: list[str]
    ) -> None:
        schema = self.layout.arrow_schema()
        plain = [name for name in schema.names if name not in self.layout.image_keys.values()]
        pictures = [f"{key}.{part}" for key in self.layout.image_keys.values() for part in ("bytes", "path")]
        columns = [f"{name}.list.element" if pa.types.is_fixed_size_list(schema.field(name).type) else name for name in plain]
        compression = dict.fromkeys(columns, "snappy") | dict.fromkeys(pictures, "none")
        writer = pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False, write_statistics=plain)
        with writer:
            for episode, row in zip(staged, rows, strict=True):
                task = tasks.index(episode.task)
                writer.write_table(_numbered_table(pq.read_table(episode.data_path), schema, row, task))

    def _write_videos(self, staged: Sequence[StagedEpisode], rows: list[dict[str, Any]], grown: Manifest) -> None:
        dt_s = 1.0 / self.layout.fps
        sizes = [sum(episode.video_path(name).stat().st_size for name in self.layout.cameras) for episode in staged]
        for group in _groups(sizes, names.VIDEO_FILE_MB * _MB):
            place = nth_file(grown.num_video_files)
            lengths = [staged[i].num_frames for i in group]
            for name, key in self.layout.image_keys.items():
                target = self.root / names.VIDEO_PATH.format(video_key=key, **place)
                with replacing(target) as path:
                    video.concatenate([staged[i].video_path(name) for i in group], lengths, path, self.layout.fps)
                for i, end in zip(group, np.cumsum(lengths).tolist(), strict=True):
                    rows[i] |= {f"videos/{key}/{part}": value for part, value in place.items()}
                    rows[i][f"videos/{key}/from_timestamp"] = (end - staged[i].num_frames) * dt_s
                    rows[i][f"videos/{key}/to_timestamp"] = end * dt_s
            grown.num_video_files += 1

    def _write_metadata(self, rows: list[dict[str, Any]], grown: Manifest) -> None:
        place = nth_file(grown.num_episode_files)
        for row in rows:
            row |= {f"meta/episodes/{name}": value for name, value in place.items()}
        with replacing(self.root / names.EPISODES_PATH.format(**place)) as path:
            pq.write_table(pa.Table.from_pylist(rows), path, compression="snappy")
        grown.num_episode_files += 1
        tasks = pd.DataFrame({"task_index": range(len(grown.tasks))}, index=pd.Index(grown.tasks, name="task"))
        with replacing(self.root / names.TASKS_PATH) as path:
            pq.write_table(pa.Table.from_pandas(tasks), path)
        write_json(self.root / names.STATS_PATH, self._dataset_summary(grown), indent=4)
        grown.write(self.root)
        info = self.layout.info(
            episodes=len(grown.episodes), frames=grown.num_frames, tasks=len(grown.tasks), video_info=self._video_info()
        )
        write_json(self.root / names.INFO_PATH, info, indent=4)  # from here on the new episodes count

    def _dataset_summary(self, grown: Manifest) -> dict[str, Any]:
        """Returns exact statistics over all episodes; lerobot's own are a weighted mean of per-episode quantiles."""
        files = [self.root / names.DATA_PATH.format(**nth_file(i)) for i in range(grown.num_data_files)]
        summary = {key: image_summary(grown.histograms[name], grown.num_frames) for name, key in self.layout.image_keys.items()}
        for name in [*self.layout.vectors, *names.INDEX_COLUMNS]:
            parts = [_column(path, name) for path in files]
            summary[name] = vector_summary(np.concatenate(parts))
        return summary

    def _video_info(self) -> dict[str, Any] | None:
        if self.layout.storage is ImageStorage.IMAGE:
            return None
        height, width = next(iter(self.layout.cameras.values()))
        return video.describe(height, width, self.layout.fps)

    def _drop_uncommitted_files(self) -> None:
        """Removes files that an interrupted `finalize` left behind; lerobot would read every parquet it finds."""
        kept = {names.DATA_PATH.format(**nth_file(i)) for i in range(self.manifest.num_data_files)}
        kept |= {names.EPISODES_PATH.format(**nth_file(i)) for i in range(self.manifest.num_episode_files)}
        for key in self.layout.image_keys.values():
            places = (nth_file(i) for i in range(self.manifest.num_video_files))
            kept |= {names.VIDEO_PATH.format(video_key=key, **place) for place in places}
        for folder in ("data", "meta/episodes", "videos"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_file() and path.relative_to(self.root).as_posix() not in kept:
                    path.unlink()


def _episode_rows(old: Manifest, grown: Manifest, staged: Sequence[StagedEpisode]) -> list[dict[str, Any]]:
    """Returns one row of `meta/episodes` per new episode, without the places of its files."""
    rows, start = [], old.num_frames
    for index, episode in enumerate(staged, start=len(old.episodes)):
        end = start + episode.num_frames
        task = grown.tasks.index(episode.task)
        constant = {"episode_index": np.full(end - start, index), "task_index": np.full(end - start, task)}
        numbering = {**constant, "index": np.arange(start, end)}
        summary = episode.summary | {name: vector_summary(values) for name, values in numbering.items()}
        row = {
            "episode_index": index, "tasks": [episode.task], "length": episode.num_frames,
            "dataset_from_index": start, "dataset_to_index": end,
        }  # fmt: skip
        rows.append(row | {f"stats/{key}/{stat}": v for key, stats in summary.items() for stat, v in stats.items()})
        start = end
    return rows


def _numbered_table(table: pa.Table, schema: pa.Schema, row: dict[str, Any], task: int) -> pa.Table:
    numbers = {
        "episode_index": np.full(table.num_rows, row["episode_index"]),
        "index": np.arange(row["dataset_from_index"], row["dataset_to_index"]),
        "task_index": np.full(table.num_rows, task),
    }
    for name, values in numbers.items():
        table = table.set_column(schema.get_field_index(name), schema.field(name), pa.array(values, pa.int64()))
    return table.cast(schema)


def _column(path: Path, name: str) -> np.ndarray[Any, Any]:
    column = pq.read_table(path, columns=[name]).column(0).combine_chunks()
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _groups(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Returns runs of consecutive positions whose sizes add up to at most `limit` (a single larger one stays alone)."""
    groups: list[list[int]] = []
    total = 0
    for position, size in enumerate(sizes):
        if not groups or total + size > limit:
            groups.append([])
            total = 0
        groups[-1].append(position)
        total += size
    return groups


def _take_lock(root: Path) -> int:
    descriptor = os.open(root / ".writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise DatasetError(f"another process is writing to {root}; wait for it or choose another root") from None
    return descriptor
