"""What a recorded dataset remembers about its making: `meta/recording-<episodes>.json`.

The file whose number equals `total_episodes` of `meta/info.json` is the valid one; a finalize that was killed may have
left a later one, which is then ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vla.data.atomic import write_json
from vla.data.layout import INFO_PATH, DatasetLayout, read_info
from vla.data.staging import StagedEpisode
from vla.errors import DatasetError

_FORMAT = 1


@dataclass(kw_only=True)
class Manifest:
    """Episodes with their keys and records, rejected attempts, and what later statistics need.

    Attributes:
        identity: the settings under which everything in this dataset was recorded.
        histograms: camera to (3, 256) counts of pixel levels over all frames.
    """

    identity: dict[str, Any]
    episodes: list[dict[str, Any]] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    histograms: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    num_frames: int = 0
    num_data_files: int = 0
    num_video_files: int = 0
    num_episode_files: int = 0

    @classmethod
    def open(cls, root: Path, layout: DatasetLayout, identity: dict[str, Any]) -> Self:
        """Returns the manifest in `root`, or a new one, already on disk, when `root` is empty.

        Raises:
            DatasetError: recorded under another identity, or not by this writer.
        """
        identity = json.loads(json.dumps(identity | {"features": layout.features()}))
        found = read_manifest(root)
        if found is None and (root / INFO_PATH).exists():
            raise DatasetError(f"{root} holds a dataset of another writer; choose an empty root")
        if found is None:
            new = cls(
                identity=identity,
                histograms={name: np.zeros((3, 256), np.int64) for name in layout.cameras},
            )
            new.write(root)
            return new
        before, now = _flat(found.identity), _flat(identity)
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise DatasetError(
                    f"{root} was recorded with {name}={before.get(name)!r}, not {now.get(name)!r}; "
                    "use that setting again or choose another root"
                )
        return cls(**vars(found))

    def extended(self, staged: Sequence[StagedEpisode], rejected: dict[int, str]) -> Manifest:
        """Returns a copy that also holds the staged episodes."""
        grown = Manifest(**vars(self))
        entries = [
            {"key": e.key, "num_frames": e.num_frames, "task": e.task, "record": e.record}
            for e in staged
        ]
        grown.episodes = self.episodes + entries
        grown.rejected = self.rejected | rejected
        grown.tasks = list(dict.fromkeys(self.tasks + [episode.task for episode in staged]))
        grown.num_frames = self.num_frames + sum(episode.num_frames for episode in staged)
        grown.histograms = {
            name: np.stack([counts, *(e.histograms[name] for e in staged)]).sum(axis=0)
            for name, counts in self.histograms.items()
        }
        return grown

    def write(self, root: Path) -> None:
        """Puts the manifest beside those of other sizes."""
        values = asdict(self) | {
            "histograms": {name: counts.tolist() for name, counts in self.histograms.items()}
        }
        write_json(_path(root, len(self.episodes)), {"format": _FORMAT, **values}, indent=None)

    @staticmethod
    def drop_all_but(root: Path, num_episodes: int) -> None:
        """Removes the manifests of earlier states."""
        for path in (root / "meta").glob("recording-*.json"):
            if path != _path(root, num_episodes):
                path.unlink()


def read_manifest(root: Path) -> Manifest | None:
    """Returns the valid manifest in `root`, or None for a dataset recorded by other software."""
    committed = int(read_info(root).get("total_episodes", 0)) if (root / INFO_PATH).exists() else 0
    path = _path(root, committed)
    if not path.is_file():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    if values.pop("format") != _FORMAT:
        raise DatasetError(
            f"{path} was written by another version of vla; collect into another root"
        )
    values["rejected"] = {int(key): reason for key, reason in values["rejected"].items()}
    values["histograms"] = {
        name: np.asarray(rows, np.int64) for name, rows in values["histograms"].items()
    }
    return Manifest(**values)


def _path(root: Path, num_episodes: int) -> Path:
    return root / "meta" / f"recording-{num_episodes:06d}.json"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings under dotted names, so that a difference can be named."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat
