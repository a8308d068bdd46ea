"""What a LeRobotDataset v3 holds and where: features, file names, `meta/info.json`.

Source: lerobot 0.6.1, datasets/utils.py and datasets/feature_utils.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pyarrow as pa

from vla.errors import DatasetError
from vla.types import Embodiment

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

IMAGE_PREFIX = "observation.images."
STATE = "observation.state"
ACTION = "action"
EXECUTED_ACTION = "action.executed"
ENVIRONMENT_STATE = "observation.environment_state"
GROUNDING_NAMES = (
    "target_from_tool_x", "target_from_tool_y", "target_from_tool_z", "front_u", "front_v", "wrist_u", "wrist_v",
)  # fmt: skip

# Bookkeeping columns that every LeRobotDataset has, in lerobot's order.
INDEX_COLUMNS = {
    "timestamp": pa.float32(), "frame_index": pa.int64(), "episode_index": pa.int64(), "index": pa.int64(),
    "task_index": pa.int64(),
}  # fmt: skip


class ImageStorage(Enum):
    """How pictures are stored."""

    IMAGE = "image"  # PNG inside the parquet files: exact pixels, fast to write, best for small pictures
    VIDEO = "video"  # H.264 mp4 per camera: small for large pictures, lossy


@dataclass(frozen=True, kw_only=True)
class DatasetLayout:
    """The features of one dataset.

    Attributes:
        cameras: camera name to (height, width).
        vectors: feature name to the names of its numbers, two or more, e.g. {"action": ("dx", ...)}.
    """

    fps: int
    robot_type: str
    cameras: dict[str, tuple[int, int]]
    vectors: dict[str, tuple[str, ...]]
    storage: ImageStorage = ImageStorage.IMAGE

    @classmethod
    def for_embodiment(
        cls, embodiment: Embodiment, image_size: int, *, storage: ImageStorage = ImageStorage.IMAGE
    ) -> DatasetLayout:
        """Returns what `vla collect` writes: square pictures, state, label, executed action, grounding."""
        action = embodiment.action_spec.names
        return cls(
            fps=round(embodiment.action_spec.rate_hz),
            robot_type=embodiment.name,
            cameras=dict.fromkeys(embodiment.camera_names, (image_size, image_size)),
            vectors={
                STATE: embodiment.state_spec.names,
                ACTION: action,
                EXECUTED_ACTION: action,
                ENVIRONMENT_STATE: GROUNDING_NAMES,
            },
            storage=storage,
        )

    @property
    def image_keys(self) -> dict[str, str]:
        """Camera name to feature name."""
        return {name: IMAGE_PREFIX + name for name in self.cameras}

    def features(self) -> dict[str, dict[str, Any]]:
        """Returns `features` of `meta/info.json`."""
        pictures: dict[str, dict[str, Any]] = {}
        for name, (height, width) in self.cameras.items():
            picture = {
                "dtype": self.storage.value,
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
            }
            pictures[IMAGE_PREFIX + name] = picture
        numbers = {
            key: {"dtype": "float32", "shape": [len(names)], "names": list(names)}
            for key, names in self.vectors.items()
        }
        indices = {
            key: {"dtype": _numpy_name(kind), "shape": [1], "names": None}
            for key, kind in INDEX_COLUMNS.items()
        }
        return pictures | numbers | indices

    def arrow_schema(self) -> pa.Schema:
        """Returns the schema of a data file, with the metadata by which `datasets` knows pictures."""
        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns: dict[str, tuple[pa.DataType, dict[str, Any]]] = {}
        if self.storage is ImageStorage.IMAGE:
            columns |= {key: (picture, {"_type": "Image"}) for key in self.image_keys.values()}
        number = {"dtype": "float32", "_type": "Value"}
        for key, names in self.vectors.items():
            described = {"feature": number, "length": len(names), "_type": "List"}
            columns[key] = (pa.list_(pa.float32(), len(names)), described)
        for key, kind in INDEX_COLUMNS.items():
            columns[key] = (kind, {"dtype": _numpy_name(kind), "_type": "Value"})
        features = {key: described for key, (_, described) in columns.items()}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        fields = [pa.field(key, kind) for key, (kind, _) in columns.items()]
        return pa.schema(fields, metadata=metadata)

    def info(
        self, *, episodes: int, frames: int, tasks: int, video_info: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the content of `meta/info.json`."""
        features = self.features()
        for key in self.image_keys.values() if video_info else ():
            features[key]["info"] = video_info
        return {
            "codebase_version": CODEBASE_VERSION,
            "fps": self.fps,
            "features": features,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": tasks,
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.storage is ImageStorage.VIDEO else None,
            "robot_type": self.robot_type,
            "splits": {"train": f"0:{episodes}"},
        }


def read_info(root: Path) -> dict[str, Any]:
    """Returns `meta/info.json`; raises DatasetError when `root` holds no LeRobotDataset v3."""
    path = root / INFO_PATH
    if not path.is_file():
        raise DatasetError(
            f"no LeRobotDataset at {root} ({INFO_PATH} is absent); make one with `vla collect root={root}`"
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(
            f"{path} is not JSON ({error}); restore it or collect the dataset again"
        ) from None
    version = info.get("codebase_version", "none")
    if not str(version).startswith("v3."):
        raise DatasetError(
            f"{root} is a LeRobotDataset {version}, expected v3.x; "
            "convert it with python -m lerobot.scripts.convert_dataset_v21_to_v30"
        )
    return info


def picture_size(feature: dict[str, Any]) -> tuple[int, int]:
    """Returns height and width of an image or video feature; older recordings put the channels first."""
    shape, names = feature["shape"], feature.get("names") or []
    if names and str(names[0]).startswith("channel"):
        return int(shape[1]), int(shape[2])
    return int(shape[0]), int(shape[1])


def nth_file(number: int) -> dict[str, int]:
    """Returns chunk_index and file_index of the n-th file."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}


def _numpy_name(kind: pa.DataType) -> str:
    return "float32" if kind == pa.float32() else str(kind)
