"""Pictures decoded once into raw uint8 files, so that training reads any frame with one memory copy.

A random 64 px frame costs about 0.1 ms to decode from PNG and 1 ms or more from video, and 5 microseconds from here.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vla.data import video
from vla.data.atomic import replacing
from vla.data.layout import EPISODES_PATH, VIDEO_PATH
from vla.errors import DatasetError
from vla.types import ImageArray

_FOLDER = ".frames"
_VERSION = 1  # of the decoding below; part of the fingerprint
_BATCH = 256


class PictureSource:
    """The pictures of one camera in a LeRobotDataset, stored as images or video.

    Args:
        key: feature name, e.g. "observation.images.front".
        shape: (frames, height, width) wanted; pictures of another size are resized to it.
        episode_ends: row after the last frame of each episode.
    """

    def __init__(
        self,
        root: Path,
        info: dict[str, Any],
        key: str,
        shape: tuple[int, int, int],
        episode_ends: Sequence[int],
    ) -> None:
        self.root, self.key, self.shape = root, key, shape
        self._info = info
        self._ends = list(episode_ends)
        self._is_video = info["features"][key]["dtype"] == "video"

    def open(self, *, cache: bool) -> ImageArray:
        """Returns all pictures, (frames, height, width, 3) uint8: a read-only memory map, or in RAM without `cache`.

        Raises:
            DatasetError: a picture is missing or cannot be decoded; names episode and frame.
        """
        shape = (*self.shape, 3)
        if not cache:
            images = np.empty(shape, np.uint8)
            self._decode_into(images)
            return images
        path = self._cache_path()
        if not path.is_file() or path.stat().st_size != int(np.prod(shape)):
            self._check_space(path.parent, int(np.prod(shape)))
            with replacing(path) as temporary:
                written = np.memmap(temporary, np.uint8, "w+", shape=shape)
                self._decode_into(written)
                written.flush()
                del written
            self._drop_other_versions(path)
        return np.memmap(path, np.uint8, "r", shape=shape)

    def pick(self, rows: Sequence[int]) -> ImageArray:
        """Returns the pictures at `rows` (ascending), decoding as little else as the storage allows."""
        images = np.empty((len(rows), *self.shape[1:], 3), np.uint8)
        if self._is_video:
            places = {row: i for i, row in enumerate(rows)}
            for row, picture in self._shown():
                if row in places:
                    images[places[row]] = picture
                if row == rows[-1]:
                    break
            return images
        position = start = 0
        for encoded in self._encoded_batches():
            while position < len(rows) and rows[position] < start + len(encoded):
                picture = _decode(encoded[rows[position] - start], self._size)
                images[position] = self._checked(picture, rows[position])
                position += 1
            if position == len(rows):
                break
            start += len(encoded)
        return images

    def _decode_into(self, images: ImageArray) -> None:
        decode = self._from_video if self._is_video else self._from_parquet
        columns = (
            TextColumn("decoding {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            task = progress.add_task(self.key, total=len(images))
            done = decode(images, lambda count: progress.advance(task, count))
        if done != len(images):
            raise DatasetError(
                f"{self.root} has {done} pictures of {self.key} but {len(images)} frames; collect the dataset again"
            )

    def _from_parquet(self, images: ImageArray, advance: Callable[[int], None]) -> int:
        start = 0
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for encoded in self._encoded_batches():
                encoded = encoded[: len(images) - start]
                pictures = pool.map(_decode, encoded, [self._size] * len(encoded))
                for row, picture in enumerate(pictures, start):
                    images[row] = self._checked(picture, row)
                start += len(encoded)
                advance(len(encoded))
        return start

    def _encoded_batches(self) -> Iterator[list[bytes | None]]:
        for path in self._files():
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_BATCH, columns=[self.key]):
                    yield batch.column(0).field("bytes").to_pylist()

    def _from_video(self, images: ImageArray, advance: Callable[[int], None]) -> int:
        done = 0
        for row, picture in self._shown():
            images[row] = picture
            advance(1)
            done += 1
        return done

    def _shown(self) -> Iterator[tuple[int, ImageArray]]:
        """Yields every row with its picture, file after file, each decoded once from start to end."""
        half_frame_s = 0.5 / self._info["fps"]
        for path, rows, times in self._video_plan():
            position = 0
            for seconds, picture in video.read_frames(path):
                if position == len(rows):
                    break
                if times[position] < seconds - half_frame_s:
                    missing = f"{path.name} has no frame at {times[position]:.3f} s"
                    raise DatasetError(
                        f"{self._place(rows[position])}: {missing}; remove that episode"
                    )
                if times[position] <= seconds + half_frame_s:
                    yield rows[position], resized(Image.fromarray(picture), self._size)
                    position += 1
            if position < len(rows):
                ends = f"{path} ends before {times[position]:.3f} s"
                raise DatasetError(f"{self._place(rows[position])}: {ends}; remove that episode")

    def _video_plan(self) -> Iterator[tuple[Path, list[int], list[float]]]:
        """Yields each mp4 file with the rows it shows and their seconds within it, in the order of time."""
        names = [f"videos/{self.key}/{x}" for x in ("chunk_index", "file_index", "from_timestamp")]
        columns = ["episode_index", *names]
        tables = [pq.read_table(path, columns=columns) for path in episode_files(self.root)]
        entries = [row for table in tables for row in table.to_pylist()]
        files: dict[tuple[int, int], list[tuple[float, int]]] = {}
        for row in entries[: len(self._ends)]:
            chunk, number, start_s = (row[name] for name in names)
            files.setdefault((chunk, number), []).append((start_s, row["episode_index"]))
        template = self._info.get("video_path") or VIDEO_PATH
        for (chunk, number), episodes in sorted(files.items()):
            rows: list[int] = []
            times: list[float] = []
            for start_s, episode in sorted(episodes):
                first, end = self._ends[episode - 1] if episode else 0, self._ends[episode]
                rows += range(first, end)
                times += [start_s + i / self._info["fps"] for i in range(end - first)]
            name = template.format(video_key=self.key, chunk_index=chunk, file_index=number)
            yield self.root / name, rows, times

    @property
    def _size(self) -> tuple[int, int]:
        return self.shape[2], self.shape[1]

    def _checked(self, picture: ImageArray | None, row: int) -> ImageArray:
        if picture is None:
            raise DatasetError(
                f"{self._place(row)}: {self.key} cannot be decoded; remove that episode"
            )
        return picture

    def _place(self, row: int) -> str:
        episode = int(np.searchsorted(self._ends, row, side="right"))
        first = self._ends[episode - 1] if episode else 0
        return f"{self.root}, episode {episode}, frame {row - first}"

    def _files(self) -> list[Path]:
        if self._is_video:
            return sorted((self.root / "videos" / self.key).rglob("*.mp4"))
        return data_files(self.root)

    def _cache_path(self) -> Path:
        fingerprint = hashlib.sha256(repr((_VERSION, self.key, self.shape)).encode())
        for path in self._files():
            status = path.stat()
            fingerprint.update(
                f"{path.relative_to(self.root)} {status.st_size} {status.st_mtime_ns}\n".encode()
            )
        folder = self.root / _FOLDER
        if not os.access(folder if folder.exists() else self.root, os.W_OK):
            folder = (
                Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vla" / "frames"
            )
        return folder / f"{self._cache_prefix()}{fingerprint.hexdigest()[:16]}.u8"

    def _cache_prefix(self) -> str:
        _, height, width = self.shape
        return f"{self.key.rsplit('.', 1)[-1]}-{height}x{width}-"

    def _check_space(self, folder: Path, needed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise DatasetError(
                f"decoded pictures of {self.key} take {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free; "
                "make room or use a smaller image_size"
            )

    def _drop_other_versions(self, path: Path) -> None:
        if path.parent == self.root / _FOLDER:
            for other in path.parent.glob(self._cache_prefix() + "*.u8"):
                if other != path:
                    other.unlink(missing_ok=True)


def data_files(root: Path) -> list[Path]:
    """Returns the parquet files of a dataset in the order in which lerobot concatenates them."""
    return sorted((root / "data").glob("*/*.parquet"))


def episode_files(root: Path) -> list[Path]:
    """Returns the parquet files that describe the episodes, in their order."""
    return sorted((root / EPISODES_PATH.split("/chunk")[0]).glob("*/*.parquet"))


def _decode(encoded: bytes | None, size: tuple[int, int]) -> ImageArray | None:
    try:
        with Image.open(io.BytesIO(encoded or b"")) as picture:
            return resized(picture.convert("RGB"), size)
    except (OSError, ValueError):
        return None


def resized(picture: Image.Image, size: tuple[int, int]) -> ImageArray:
    """Returns the picture at `size` (width, height), stretched with antialiasing as OpenVLA's resize-naive does."""
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture)
