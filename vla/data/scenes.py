"""Reads labelled scenes: any row at once, pictures from a memory map, masks and words from RAM.

Pictures are decoded once, into one raw file for each size; the rest of a dataset of 30,000 scenes is some 60 MB.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla.data.atomic import replacing
from vla.data.scene_rows import SceneRow, decode_png
from vla.data.scenes_write import read_meta, shard_paths
from vla.errors import DatasetError, unknown_name
from vla.types import ImageArray

_CACHE_FOLDER = ".frames"
_CACHE_VERSION = 1
Size = tuple[int, int]


class Scenes:
    """Labelled scenes, all of a dataset or those that a filter leaves; rows come by their position in this selection.

    Attributes:
        rows: (len,) int64, positions in the whole dataset.
    """

    def __init__(self, store: _Store, rows: NDArray[np.int64]) -> None:
        self._store, self.rows = store, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> SceneRow:
        return self._store.row(int(self.rows[index]))

    def __iter__(self) -> Iterator[SceneRow]:
        return (self._store.row(int(row)) for row in self.rows)

    def frames(self, index: int) -> ImageArray:
        """Returns the (T, 3, H, W) uint8 pictures of one row, without its words; read-only."""
        return self._store.frames(int(self.rows[index]))

    @property
    def sizes(self) -> dict[Size, int]:
        """(height, width) to the number of rows of that size."""
        found, counts = np.unique(self._store.sizes[self.rows], axis=0, return_counts=True)
        return {(int(h), int(w)): int(n) for (h, w), n in zip(found, counts, strict=True)}

    def where(
        self,
        *,
        size: Size | None = None,
        camera: str | None = None,
        kind: str | None = None,
        question: str | None = None,
        num_frames: int | None = None,
    ) -> Scenes:
        """Returns the rows of which all given conditions are true.

        Args:
            size: (height, width).
            camera: "zoom", "front" or "wrist".
            kind: "still" or "clip".
            question: a kind of question that is asked about the picture.
            num_frames: of a clip.

        Raises:
            DatasetError: no row is left; names what there is.
        """
        store, keep = self._store, np.ones(len(self.rows), dtype=bool)
        if size is not None:
            keep &= (store.sizes[self.rows] == size).all(axis=1)
        if num_frames is not None:
            keep &= store.num_frames[self.rows] == num_frames
        for column, value in (("camera", camera), ("kind", kind)):
            if value is not None:
                keep &= store.column(column)[self.rows] == value
        if question is not None:
            keep &= store.asks(question)[self.rows]
        if not keep.any():
            given = {"size": size, "camera": camera, "kind": kind, "question": question}
            asked = ", ".join(f"{name}={value}" for name, value in given.items() if value)
            raise DatasetError(
                f"no scene of {store.root} has {asked}; there are sizes {sorted(self.sizes)}, cameras "
                f"{sorted(set(store.column('camera')))}, kinds {sorted(set(store.column('kind')))}, "
                f"questions {store.question_kinds}"
            )
        return Scenes(store, self.rows[keep])

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Scenes:
        """Returns the rows at these positions, in that order."""
        return Scenes(self._store, self.rows[np.asarray(indices, dtype=np.int64)])

    def texts(self, indices: Sequence[int] | None = None) -> list[str]:
        """Returns lines of plain text for a language model: captions, and questions with their answers.

        Only training words; of all rows, or of those at `indices`.
        """
        rows = self.rows if indices is None else self.rows[np.asarray(indices, dtype=np.int64)]
        return [line for row in rows for line in self._store.lines(int(row))]


def open_scenes(root: Path | str, *, cache: bool = True) -> Scenes:
    """Returns the labelled scenes in `root`, also while more are still being drawn: whole shards count.

    Args:
        cache: keep decoded pictures in a memory map beside the dataset; without it every picture is decoded when asked
            for, which starts at once and costs 0.3 ms a picture of 96 px.

    Raises:
        DatasetError: `root` holds no labelled scenes, or there is no room for the decoded pictures.
    """
    root = Path(root).expanduser()
    read_meta(root)
    paths = shard_paths(root)
    if not paths:
        raise DatasetError(f"{root} holds no finished shard yet; run its `vla collect` to the end")
    store = _Store(root, paths, cache=cache)
    return Scenes(store, np.arange(len(store.sizes)))


class _Store:
    """All rows of a dataset: words and masks in an Arrow table, pictures in memory maps or as PNG."""

    def __init__(self, root: Path, paths: list[Path], *, cache: bool) -> None:
        self.root, self._paths = root, paths
        names = [name for name in pq.read_schema(paths[0]).names if name != "frames"]
        self._table = pa.concat_tables(pq.read_table(path, columns=names) for path in paths)
        self._table = self._table.combine_chunks()
        self.sizes = np.stack([self._numbers("height"), self._numbers("width")], axis=1)
        self.num_frames = self._numbers("num_frames")
        self._shard_ends = np.cumsum([pq.read_metadata(path).num_rows for path in paths])
        self._shard: tuple[int, pa.ChunkedArray] | None = None
        self._columns: dict[str, NDArray[np.object_]] = {}
        self._questions: tuple[NDArray[np.int64], NDArray[np.object_]] | None = None
        self._starts = self._frame_starts()
        self._maps = (
            {size: self._open_map(size) for size in self._starts_by_size} if cache else None
        )

    def row(self, row: int) -> SceneRow:
        record = self._table.slice(row, 1).to_pylist()[0]
        return SceneRow.from_record(record, self.frames(row))

    def frames(self, row: int) -> ImageArray:
        count = int(self.num_frames[row])
        if self._maps is None:
            return np.stack([decode_png(png).transpose(2, 0, 1) for png in self._encoded(row)])
        start = int(self._starts[row])
        return self._maps[self._size(row)][start : start + count]

    def lines(self, row: int) -> list[str]:
        record = self._table.slice(row, 1).select(["captions", "questions"]).to_pylist()[0]
        asked = [
            f"{entry['question']} {entry['answer']}"
            for entry in record["questions"]
            if entry["split"] == "train"
        ]
        return record["captions"] + asked

    def column(self, name: str) -> NDArray[np.object_]:
        if name not in self._columns:
            self._columns[name] = self._table[name].to_numpy(zero_copy_only=False)
        return self._columns[name]

    @property
    def question_kinds(self) -> list[str]:
        return sorted(set(self._asked()[1]))

    def asks(self, kind: str) -> NDArray[np.bool_]:
        """Returns (rows,) bool, whether a question of this kind is asked about the picture."""
        if kind not in self.question_kinds:
            raise DatasetError(unknown_name("kind of question", kind, self.question_kinds))
        parents, kinds = self._asked()
        asked = np.zeros(len(self.sizes), dtype=bool)
        asked[parents[kinds == kind]] = True
        return asked

    def _asked(self) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """Returns the row and the kind of every question."""
        if self._questions is None:
            questions = self._table["questions"].combine_chunks()
            lengths = questions.value_lengths().to_numpy()
            kinds = questions.flatten().field("kind").to_numpy(zero_copy_only=False)
            self._questions = np.repeat(np.arange(len(lengths)), lengths), kinds
        return self._questions

    def _numbers(self, name: str) -> NDArray[np.int64]:
        return self._table[name].to_numpy().astype(np.int64)

    def _size(self, row: int) -> Size:
        return int(self.sizes[row, 0]), int(self.sizes[row, 1])

    def _frame_starts(self) -> NDArray[np.int64]:
        """Returns (rows,) where the frames of each row begin among all frames of its size."""
        starts = np.zeros(len(self.sizes), dtype=np.int64)
        self._starts_by_size: dict[Size, int] = {}
        for height, width in np.unique(self.sizes, axis=0).tolist():
            of_size = (self.sizes == (height, width)).all(axis=1)
            counts = self.num_frames[of_size]
            starts[of_size] = np.cumsum(counts) - counts
            self._starts_by_size[height, width] = int(counts.sum())
        return starts

    def _encoded(self, row: int) -> list[bytes]:
        """Returns the PNG files of one row; keeps the shard it came from."""
        shard = int(np.searchsorted(self._shard_ends, row, side="right"))
        if self._shard is None or self._shard[0] != shard:
            column = pq.read_table(self._paths[shard], columns=["frames"])["frames"]
            self._shard = shard, column
        first = int(self._shard_ends[shard - 1]) if shard else 0
        return [entry["bytes"] for entry in self._shard[1][row - first].as_py()]

    def _open_map(self, size: Size) -> ImageArray:
        shape = (self._starts_by_size[size], 3, *size)
        path = self._map_path(size)
        needed = int(np.prod(shape))
        if not path.is_file() or path.stat().st_size != needed:
            self._decode_into_map(size, path, shape)
        return np.memmap(path, np.uint8, "r", shape=shape)

    def _decode_into_map(self, size: Size, path: Path, shape: tuple[int, ...]) -> None:
        needed = int(np.prod(shape))
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if needed > free:
            raise DatasetError(
                f"decoded pictures of {self.root} take {needed / 1e9:.1f} GB, {path.parent} has {free / 1e9:.1f} GB "
                "free; make room or open with cache=False"
            )
        with replacing(path) as temporary:
            written = np.memmap(temporary, np.uint8, "w+", shape=shape)
            position = 0
            for row in np.flatnonzero((self.sizes == size).all(axis=1)):
                for png in self._encoded(int(row)):
                    written[position] = decode_png(png).transpose(2, 0, 1)
                    position += 1
            written.flush()
            del written
        for other in path.parent.glob(f"{self._prefix(size)}*.u8"):
            if other != path:
                other.unlink(missing_ok=True)

    def _map_path(self, size: Size) -> Path:
        fingerprint = hashlib.sha256(repr((_CACHE_VERSION, size)).encode())
        for path in self._paths:
            status = path.stat()
            fingerprint.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        folder = self.root / _CACHE_FOLDER
        if not os.access(folder if folder.exists() else self.root, os.W_OK):
            folder = (
                Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vla" / "frames"
            )
        return folder / f"{self._prefix(size)}{fingerprint.hexdigest()[:16]}.u8"

    @staticmethod
    def _prefix(size: Size) -> str:
        return f"scenes-{size[1]}x{size[0]}-"
