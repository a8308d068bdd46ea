"""A drive becomes a dataset while it goes on: frames in, finished episodes out, and whoever drives never waits.

A dataset's frames lie one action period apart. So an episode ends where the arm was held or waited, and another begins
when it goes on: within an episode every action led from its frame to the next.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.data.layout import ACTION, STATE, DatasetLayout
from vla.data.staging import Episode, stage_episode
from vla.data.write import DatasetWriter
from vla.errors import VlaError
from vla.types import Embodiment, FloatArray, ImageArray

MIN_FRAMES = 5  # shorter stretches are left out
_LONGEST_STEP = 1.6  # action periods between two frames of one episode
_MAX_WAITING = 2  # episodes on their way to disk
_MAX_EPISODE_BYTES = 192 << 20  # of pictures in memory; a longer episode goes on as another


@dataclass
class RecordCounts:
    """What was kept and what was not; frames and episodes."""

    frames: int = 0
    episodes: int = 0
    dropped_frames: int = 0  # too slow a disk: the oldest waiting episode gave way
    short_frames: int = 0  # of stretches of fewer than five frames
    trouble: list[str] = field(default_factory=list[str])


@dataclass
class _Part:
    """One stretch of frames without a gap."""

    task: str
    record: dict[str, Any]
    images: list[dict[str, ImageArray]] = field(default_factory=list[dict[str, ImageArray]])
    states: list[FloatArray] = field(default_factory=list[FloatArray])
    actions: list[FloatArray] = field(default_factory=list[FloatArray])
    nbytes: int = 0


def drive_layout(
    embodiment: Embodiment, cameras: dict[str, tuple[int, int]], robot_type: str
) -> DatasetLayout:
    """Returns the layout of a recorded drive; `cameras` maps names to (height, width)."""
    spec = embodiment.action_spec
    return DatasetLayout(
        fps=round(spec.rate_hz),
        robot_type=robot_type,
        cameras=cameras,
        vectors={STATE: embodiment.state_spec.names, ACTION: spec.names},
    )


class DriveRecorder:
    """Writes a LeRobotDataset from a thread of its own; when that falls behind, the oldest waiting episode is lost."""

    def __init__(self, root: Path, layout: DatasetLayout, identity: dict[str, Any]) -> None:
        """Opens or creates the dataset; raises DatasetError when it is somebody else's or of another layout."""
        self._writer = DatasetWriter(root, layout, identity)
        self._writer.__enter__()
        self._next_key = max(self._writer.finished, default=-1) + 1
        self._longest_step_s = _LONGEST_STEP / layout.fps
        self._waiting: queue.Queue[Episode | None] = queue.Queue(_MAX_WAITING)
        self._part: _Part | None = None
        self._is_broken = False
        self._last_s = float("-inf")
        self.counts = RecordCounts()
        self._thread = threading.Thread(target=self._write, name="dataset writer", daemon=True)
        self._thread.start()

    def begin(self, task: str, record: dict[str, Any]) -> None:
        """Begins an episode: the task in words, and what is remembered with it."""
        self.end()
        self._part = _Part(task or "unnamed", record)
        self._last_s = float("-inf")

    def add(
        self, images: dict[str, ImageArray], state: FloatArray, action: FloatArray, time_s: float
    ) -> None:
        """Adds the frame in which `action` (width,) began; a gap since the last one begins a new episode."""
        part = self._part
        if part is None:
            return
        if part.actions and time_s - self._last_s > self._longest_step_s:
            part = self._go_on(part)
        self._last_s = time_s
        part.images.append(images)
        part.states.append(state)
        part.actions.append(action)
        part.nbytes += sum(image.nbytes for image in images.values())
        if part.nbytes >= _MAX_EPISODE_BYTES:
            self._go_on(part)

    def end(self, outcome: str = "") -> None:
        """Ends the episode."""
        part, self._part = self._part, None
        if part is not None:
            self._hand_over(part, outcome)

    def close(self) -> RecordCounts:
        """Writes what is left, and returns what became of everything."""
        self.end()
        self._waiting.put(None)
        self._thread.join()
        try:
            if self._writer.finished:
                self._writer.finalize()
        except (VlaError, OSError) as error:
            self.counts.trouble.append(str(error))
        finally:
            self._writer.__exit__()
        return self.counts

    def facts(self) -> dict[str, Any]:
        """Returns the counts as plain values."""
        return asdict(self.counts)

    def _go_on(self, part: _Part) -> _Part:
        self._hand_over(part, "")
        self._part = _Part(part.task, part.record)
        return self._part

    def _hand_over(self, part: _Part, outcome: str) -> None:
        """Puts an episode in line for the disk; where the line is full the oldest gives way."""
        if len(part.actions) < MIN_FRAMES:
            self.counts.short_frames += len(part.actions)
            return
        names = part.images[0]
        episode = Episode(
            images={name: np.stack([images[name] for images in part.images]) for name in names},
            vectors={STATE: _stacked(part.states), ACTION: _stacked(part.actions)},
            task=part.task,
            record={**part.record, "outcome": outcome},
        )
        while True:
            try:
                self._waiting.put_nowait(episode)
            except queue.Full:
                self._drop_oldest()
            else:
                return

    def _drop_oldest(self) -> None:
        try:
            oldest = self._waiting.get_nowait()
        except queue.Empty:
            return
        self.counts.dropped_frames += 0 if oldest is None else oldest.num_frames

    # ---- in the thread ---------------------------------------------------------------------------------------------

    def _write(self) -> None:
        while (episode := self._waiting.get()) is not None:
            if self._is_broken:
                self.counts.dropped_frames += episode.num_frames
                continue
            try:
                stage_episode(self._writer.root, self._writer.layout, self._next_key, episode)
            except (VlaError, OSError) as error:  # a full disk must not end the drive
                self.counts.trouble.append(f"recording stopped: {error}")
                self.counts.dropped_frames += episode.num_frames
                self._is_broken = True
                continue
            self._next_key += 1
            self.counts.episodes += 1
            self.counts.frames += episode.num_frames


def _stacked(rows: list[FloatArray]) -> NDArray[np.float32]:
    return np.stack(rows).astype(np.float32)
