"""The parquet tables of a LeRobotDataset: frames with their numbers in place, episodes, tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla.data.layout import DatasetLayout
from vla.data.staging import StagedEpisode
from vla.data.summary import vector_summary

Row = dict[str, Any]


def write_frames(
    path: Path,
    layout: DatasetLayout,
    staged: Sequence[StagedEpisode],
    rows: Sequence[Row],
    tasks: Sequence[str],
) -> None:
    """Writes the frames of `staged` as one data file, a row group per episode, numbered as `rows` say."""
    schema = layout.arrow_schema()
    pictures = set(layout.image_keys.values())
    plain = [name for name in schema.names if name not in pictures]
    compression: dict[str, str] = {}  # by parquet column; PNG is compressed already
    for name in schema.names:
        if name in pictures:
            compression |= {f"{name}.bytes": "none", f"{name}.path": "none"}
        else:
            is_list = pa.types.is_fixed_size_list(schema.field(name).type)
            compression[f"{name}.list.element" if is_list else name] = "snappy"
    options: dict[str, Any] = {"compression": compression, "write_statistics": plain}
    with pq.ParquetWriter(path, schema, use_dictionary=False, **options) as writer:
        for episode, row in zip(staged, rows, strict=True):
            frames = pq.read_table(episode.data_path)
            writer.write_table(_numbered(frames, schema, row, tasks.index(episode.task)))


def episode_rows(
    staged: Sequence[StagedEpisode],
    tasks: Sequence[str],
    *,
    first_episode: int,
    first_frame: int,
) -> list[Row]:
    """Returns the rows of `meta/episodes` for `staged`, still without the places of their files."""
    rows: list[Row] = []
    start = first_frame
    for index, episode in enumerate(staged, first_episode):
        end = start + episode.num_frames
        numbers = {
            "episode_index": np.full(episode.num_frames, index),
            "index": np.arange(start, end),
            "task_index": np.full(episode.num_frames, tasks.index(episode.task)),
        }
        row: Row = {
            "episode_index": index,
            "tasks": [episode.task],
            "length": episode.num_frames,
            "dataset_from_index": start,
            "dataset_to_index": end,
        }
        summary = episode.summary | {key: vector_summary(v) for key, v in numbers.items()}
        for key, statistics in summary.items():
            row |= {f"stats/{key}/{name}": value for name, value in statistics.items()}
        rows.append(row)
        start = end
    return rows


def task_table(tasks: Sequence[str]) -> pa.Table:
    """Returns the tasks as pandas stores a frame whose index is the column "task", which lerobot expects."""
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": stored,
            "metadata": None,
        }
        for name, kind, stored in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": columns,
        "pandas_version": "2.0.0",
    }
    numbers = pa.array(range(len(tasks)), pa.int64())
    table = pa.table({"task_index": numbers, "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def column_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """Returns a column of numbers or of equally long lists as (rows, width)."""
    values = column.combine_chunks()
    is_list = pa.types.is_fixed_size_list(values.type) or pa.types.is_list(values.type)
    flat = values.flatten() if is_list else values
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), -1)


def _numbered(table: pa.Table, schema: pa.Schema, row: Row, task_index: int) -> pa.Table:
    numbers = {
        "episode_index": np.full(table.num_rows, row["episode_index"]),
        "index": np.arange(row["dataset_from_index"], row["dataset_to_index"]),
        "task_index": np.full(table.num_rows, task_index),
    }
    for name, values in numbers.items():
        position = schema.get_field_index(name)
        table = table.set_column(position, schema.field(name), pa.array(values, pa.int64()))
    return table.cast(schema)
