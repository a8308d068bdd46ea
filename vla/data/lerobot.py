"""Opens a LeRobotDataset v3 for training: numbers in RAM, pictures as memory maps, everything checked beforehand.

Reads parquet and mp4 itself: stock lerobot delivers about 200 samples a second from an image dataset and 11 with action
windows, because it decodes every picture of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla.data.frames_cache import PictureSource, data_files
from vla.data.layout import (
    ACTION,
    ENVIRONMENT_STATE,
    IMAGE_PREFIX,
    STATE,
    TASKS_PATH,
    picture_size,
    read_info,
)
from vla.data.manifest import read_manifest
from vla.data.tables import column_array
from vla.errors import DatasetError, unknown_name
from vla.types import FloatArray, ImageArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Frames:
    """All frames of one dataset, episode after episode.

    Attributes:
        images: camera to (N, H, W, 3) uint8.
        state: (N, S) proprioception.
        actions: (N, A) labels, in physical units.
        environment_state: (N, E) grounding, or None when the dataset has none.
        episode_index: (N,) which episode a frame belongs to, counted from 0.
        frame_index: (N,) place of a frame in its episode.
        episode_ends: (episodes,) index after the last frame of each episode.
        scene: (episodes,) equal for episodes that show the same scene under different instructions.
        task_index: (N,) position in `tasks`.
    """

    root: Path
    images: dict[str, ImageArray]
    state: FloatArray
    actions: FloatArray
    environment_state: FloatArray | None
    episode_index: IntArray
    frame_index: IntArray
    episode_ends: IntArray
    scene: IntArray
    tasks: list[str]
    task_index: IntArray
    fps: int
    state_names: list[str]
    action_names: list[str]

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def num_episodes(self) -> int:
        return len(self.episode_ends)


def open_frames(
    root: str | Path,
    *,
    cameras: Sequence[str],
    action_width: int | None = None,
    state_width: int | None = None,
    rate_hz: float | None = None,
    image_size: int | None = None,
    cache: bool = True,
) -> Frames:
    """Returns the frames of the LeRobotDataset in `root`, ready to train on.

    Args:
        cameras: which cameras, in the order the policy wants them.
        action_width: numbers per action that the policy expects; None accepts any.
        state_width: numbers of proprioception that the policy expects; None accepts any.
        rate_hz: actions a second that the policy will give; None accepts any.
        image_size: resize pictures to this square; None keeps their size.
        cache: keep decoded pictures on disk beside the dataset; without it they are decoded into RAM.

    Raises:
        DatasetError: not a LeRobotDataset v3, a camera or feature is missing, a width differs, an action or state is
            not finite (naming episode and frame), the rate differs, or a picture cannot be decoded.
    """
    root = Path(root)
    info = read_info(root)
    features = info["features"]
    _check_cameras(root, features, cameras)
    for name, width in ((ACTION, action_width), (STATE, state_width)):
        _check_width(root, features, name, width)
    if rate_hz is not None and info["fps"] != rate_hz:
        raise DatasetError(
            f"{root} was recorded at {info['fps']} Hz, the policy acts at {rate_hz:g} Hz; "
            "resample the dataset or use an embodiment of its rate"
        )
    has_grounding = ENVIRONMENT_STATE in features
    wanted = [
        ACTION,
        STATE,
        *([ENVIRONMENT_STATE] if has_grounding else []),
        "episode_index",
        "frame_index",
        "task_index",
    ]
    columns = _read_columns(root, wanted, int(info["total_frames"]))
    episode_index, frame_index, task_index = (
        columns.pop(name)[:, 0].astype(np.int64) for name in wanted[-3:]
    )
    ends = _episode_ends(root, episode_index, frame_index)
    for name, values in columns.items():
        _check_finite(root, name, values, episode_index, frame_index, _names(features[name]))
    images = {}
    for camera in cameras:
        height, width = (
            (image_size, image_size)
            if image_size
            else picture_size(features[IMAGE_PREFIX + camera])
        )
        source = PictureSource(
            root, info, IMAGE_PREFIX + camera, (len(task_index), height, width), ends.tolist()
        )
        images[camera] = source.open(cache=cache)
    return Frames(
        root=root,
        images=images,
        state=columns[STATE].astype(np.float32),
        actions=columns[ACTION].astype(np.float32),
        environment_state=columns[ENVIRONMENT_STATE].astype(np.float32) if has_grounding else None,
        episode_index=episode_index - episode_index[0],
        frame_index=frame_index,
        episode_ends=ends,
        scene=_scenes(root, len(ends)),
        tasks=_read_tasks(root, int(task_index.max())),
        task_index=task_index,
        fps=int(info["fps"]),
        state_names=_names(features[STATE]),
        action_names=_names(features[ACTION]),
    )


def _check_cameras(root: Path, features: dict[str, Any], cameras: Sequence[str]) -> None:
    present = [
        key.removeprefix(IMAGE_PREFIX)
        for key, value in features.items()
        if value["dtype"] in ("image", "video")
    ]
    for camera in cameras:
        if camera not in present:
            raise DatasetError(f"{root}: {unknown_name('camera', camera, present)}")


def _check_width(root: Path, features: dict[str, Any], name: str, width: int | None) -> None:
    if name not in features:
        raise DatasetError(f"{root} has no feature {name!r}; it has {', '.join(sorted(features))}")
    found = int(features[name]["shape"][0])
    if width is not None and found != width:
        listed = ", ".join(_names(features[name]))
        raise DatasetError(
            f"{root}: {name} has {found} numbers ({listed}), the policy expects {width}; "
            "use another dataset or embodiment"
        )


def _read_columns(root: Path, names: list[str], num_frames: int) -> dict[str, NDArray[Any]]:
    files = data_files(root)
    try:
        tables = [pq.read_table(path, columns=names) for path in files]
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"cannot read the data of {root} ({str(error).splitlines()[0]}); restore it or collect again"
        ) from None
    rows = sum(table.num_rows for table in tables)
    if rows < num_frames or not num_frames:
        raise DatasetError(
            f"{root} holds {rows} frames, its meta/info.json says {num_frames}; restore it or collect again"
        )
    table = pa.concat_tables(tables).slice(0, num_frames)
    return {name: column_array(table.column(name)) for name in names}


def _episode_ends(root: Path, episode_index: IntArray, frame_index: IntArray) -> IntArray:
    ends = np.append(np.flatnonzero(np.diff(episode_index)) + 1, len(episode_index))
    starts = np.concatenate([[0], ends[:-1]])
    expected = np.arange(len(frame_index)) - np.repeat(starts, ends - starts)
    wrong = np.flatnonzero(frame_index != expected)
    if len(wrong):
        row = wrong[0]
        raise DatasetError(
            f"{root}, episode {episode_index[row]}: frame {frame_index[row]} stands where frame "
            f"{expected[row]} belongs; "
            "collect the dataset again"
        )
    return ends.astype(np.int64)


def _check_finite(
    root: Path,
    name: str,
    values: NDArray[Any],
    episode: IntArray,
    frame: IntArray,
    names: list[str],
) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, dim = bad[0]
        raise DatasetError(
            f"{root}, episode {episode[row]}, frame {frame[row]}: {name} {names[dim]} is {values[row, dim]} "
            f"({len(np.unique(bad[:, 0]))} frames are not finite); remove those episodes"
        )


def _names(feature: dict[str, Any]) -> list[str]:
    """Returns the names of a vector; some recordings nest them ({"motors": [...]}) or leave them out."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    width = int(feature["shape"][0])
    return (
        [str(name) for name in names]
        if names and len(names) == width
        else [f"dimension {i}" for i in range(width)]
    )


def _read_tasks(root: Path, largest_index: int) -> list[str]:
    table = pq.read_table(root / TASKS_PATH).to_pydict()
    texts = table.get("task") or table.get("__index_level_0__")
    if texts is None:
        raise DatasetError(f"{root / TASKS_PATH} has no column 'task'; it has {sorted(table)}")
    tasks = dict(zip(table["task_index"], texts, strict=True))
    if largest_index not in tasks:
        raise DatasetError(
            f"{root}: task {largest_index} has no text in {TASKS_PATH}; restore the file"
        )
    return [tasks.get(i, "") for i in range(max(tasks) + 1)]


def _scenes(root: Path, num_episodes: int) -> IntArray:
    manifest = read_manifest(root)
    if manifest is None:
        return np.arange(num_episodes, dtype=np.int64)
    entries = manifest.episodes[:num_episodes]
    return np.array(
        [entry["record"].get("scene", i) for i, entry in enumerate(entries)], dtype=np.int64
    )
