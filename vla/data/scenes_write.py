"""Writes a dataset of labelled scenes as Parquet shards, each whole or absent, whatever gets killed when.

A scene depends on its seed alone and a shard on its number alone, so the files do not depend on how many processes
wrote them or how often they were killed: what is missing is written, what is there stays.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vla.data.atomic import replacing, write_json
from vla.data.scene_rows import SceneRow, scene_schema
from vla.data.write import take_lock
from vla.errors import DatasetError, VlaError
from vla.processes import exit_with_parent

FORMAT = "vla labelled scenes"
VERSION = 1
META_PATH = "meta/scenes.json"
ROWS_PER_SHARD = 250
_ROWS_PER_GROUP = 50  # of a shard: what reading one picture has to decompress


@dataclass(frozen=True, kw_only=True)
class SceneJob:
    """What to write, and where.

    Attributes:
        make_draw: importable; makes the function that turns a seed into a row. Called once in each process.
        first_seed: of row 0; row i has first_seed + i.
        identity: the settings under which everything in this dataset is drawn.
    """

    make_draw: Callable[[], Callable[[int], SceneRow]]
    root: Path
    num_rows: int
    first_seed: int
    identity: dict[str, Any]


def write_scenes(
    job: SceneJob, *, num_workers: int, on_rows: Callable[[int], None] = lambda count: None
) -> dict[str, Any]:
    """Writes the rows that job.root still lacks, and returns what `meta/scenes.json` then says.

    Args:
        num_workers: processes; 0 draws in this one.
        on_rows: told how many rows were added, or found, each time.

    Raises:
        DatasetError: job.root holds scenes of other settings, another process writes to it, or a scene cannot be drawn.
    """
    job.root.mkdir(parents=True, exist_ok=True)
    lock = take_lock(job.root)
    try:
        before = _checked_meta(job)
        if before is None:
            write_json(job.root / META_PATH, _meta(job, 0, {}))
        for leftover in (job.root / "data").glob(".*.tmp"):  # of a process that was killed
            leftover.unlink()
        num_rows = max(job.num_rows, before["num_rows"] if before else 0)
        missing = []
        for number in range(-(-num_rows // ROWS_PER_SHARD)):
            rows = _rows_of(number, num_rows)
            if _num_rows_in(_path(job.root, number)) == len(rows):
                on_rows(len(rows))
            else:
                missing.append((number, rows))
        if missing:
            for count in _written(job, missing, num_workers):
                on_rows(count)
        meta = _meta(job, num_rows, _census(job.root))
        write_json(job.root / META_PATH, meta)
        return meta
    finally:
        os.close(lock)


def shard_paths(root: Path) -> list[Path]:
    """Returns the shards in `root`, in the order of their rows."""
    return sorted((root / "data").glob("scenes-*.parquet"))


def read_meta(root: Path) -> dict[str, Any]:
    """Returns `meta/scenes.json`.

    Raises:
        DatasetError: `root` holds no labelled scenes, or those of another version.
    """
    path = root / META_PATH
    if not path.is_file():
        raise DatasetError(
            f"no labelled scenes at {root} ({META_PATH} is absent); make some with "
            f"`vla collect labels=true root={root}`"
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON ({error}); restore it or collect again") from None
    if meta.get("format") != FORMAT or meta.get("version") != VERSION:
        raise DatasetError(
            f"{path} is {meta.get('format')!r} version {meta.get('version')!r}, expected {FORMAT!r} version {VERSION}; "
            "collect the scenes again into another root"
        )
    return meta


def _checked_meta(job: SceneJob) -> dict[str, Any] | None:
    if not (job.root / META_PATH).exists():
        if (job.root / "meta").exists() or shard_paths(job.root):
            raise DatasetError(f"{job.root} holds another dataset; choose an empty root")
        return None
    meta = read_meta(job.root)
    before, now = meta["identity"], _identity(job)
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise DatasetError(
                f"{job.root} was drawn with {name}={before.get(name)!r}, not {now.get(name)!r}; "
                "use that setting again or choose another root"
            )
    return meta


def _identity(job: SceneJob) -> dict[str, Any]:
    return json.loads(json.dumps({**job.identity, "seed": job.first_seed}))


def _meta(job: SceneJob, num_rows: int, census: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "num_rows": num_rows,
        "rows_per_shard": ROWS_PER_SHARD,
        "identity": _identity(job),
        **census,
    }


def _census(root: Path) -> dict[str, Any]:
    """Returns how many rows there are of each size, camera and kind, and how many questions of each kind."""
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("sizes", "cameras", "kinds", "questions", "objects")
    }
    columns = [
        "width",
        "height",
        "camera",
        "kind",
        "questions.list.element.kind",
        "objects.list.element.name",
    ]
    for path in shard_paths(root):
        with pq.ParquetFile(path) as file:  # read_table takes no nested columns
            rows = file.read(columns=columns).to_pylist()
        for row in rows:
            counts["sizes"][f"{row['width']}x{row['height']}"] += 1
            counts["cameras"][row["camera"]] += 1
            counts["kinds"][row["kind"]] += 1
            counts["questions"].update(entry["kind"] for entry in row["questions"])
            counts["objects"].update(entry["name"] for entry in row["objects"])
    return {name: dict(sorted(counter.items())) for name, counter in counts.items()}


def _rows_of(number: int, num_rows: int) -> range:
    return range(number * ROWS_PER_SHARD, min((number + 1) * ROWS_PER_SHARD, num_rows))


def _path(root: Path, number: int) -> Path:
    return root / "data" / f"scenes-{number:05d}.parquet"


def _num_rows_in(path: Path) -> int:
    return pq.read_metadata(path).num_rows if path.is_file() else 0


def _written(job: SceneJob, missing: list[tuple[int, range]], num_workers: int) -> Iterator[int]:
    """Yields the number of rows of every shard once it is on disk."""
    schema = scene_schema()
    if not num_workers:
        draw = job.make_draw()
        for number, rows in missing:
            yield _write_shard(draw, job, schema, number, rows)
        return
    context = multiprocessing.get_context("spawn")  # a forked OpenGL context does not work
    pool = ProcessPoolExecutor(
        min(num_workers, len(missing)), context, initializer=_start_worker, initargs=(job, schema)
    )
    try:
        futures = [pool.submit(_write_in_worker, number, rows) for number, rows in missing]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise DatasetError(
            f"one of {num_workers} drawing processes died (out of memory?); finished shards are safe: "
            "run the same command again, with num_workers=1"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_shard(
    draw: Callable[[int], SceneRow], job: SceneJob, schema: pa.Schema, number: int, rows: range
) -> int:
    records = []
    for row in rows:
        try:
            records.append(draw(job.first_seed + row).record())
        except VlaError:
            raise
        except Exception as error:
            raise DatasetError(
                f"scene of seed {job.first_seed + row} crashed with {type(error).__name__}: {error}; "
                "finished shards are safe; see it with num_workers=0 --debug"
            ) from error
    with replacing(_path(job.root, number)) as path:
        table = pa.Table.from_pylist(records, schema)
        pq.write_table(table, path, row_group_size=_ROWS_PER_GROUP, compression="snappy")
    return len(records)


_job: tuple[SceneJob, pa.Schema] | None = None
_draw: Callable[[int], SceneRow] | None = None


def _start_worker(job: SceneJob, schema: pa.Schema) -> None:
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    exit_with_parent()
    _job = job, schema


def _write_in_worker(number: int, rows: range) -> int:
    global _draw
    assert _job is not None
    if _draw is None:  # not in the initializer, whose errors do not reach the parent as they are
        _draw = _job[0].make_draw()
    return _write_shard(_draw, *_job, number, rows)
