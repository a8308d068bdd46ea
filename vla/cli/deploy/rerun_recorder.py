"""A drive as a rerun recording (.rrd), written from a thread of its own; what it cannot keep up with is dropped."""

from __future__ import annotations

import importlib.util
import queue
import threading
from pathlib import Path
from typing import Any

from vla.errors import ConfigError
from vla.types import END_EFFECTOR_DELTA_7D, TOOL_POSE_7D, FloatArray

_MAX_WAITING = 64


def check_rerun_installed() -> None:
    """Raises ConfigError when rerun is not installed."""
    if importlib.util.find_spec("rerun") is None:
        raise ConfigError(
            "rerun=PATH needs the rerun SDK, which is not installed; pip install 'rerun-sdk>=0.24,<0.34'"
        )


class RerunRecorder:
    """Logs pictures, proprioception, actions, chunk probabilities and lateness on the timeline `drive`."""

    def __init__(self, path: Path) -> None:
        """Opens the file; raises ConfigError when rerun is not installed or the folder cannot be written to."""
        check_rerun_installed()
        import rerun  # pyright: ignore[reportMissingImports]

        self._rerun: Any = rerun
        self._recording: Any = rerun.RecordingStream("vla deploy")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._recording.save(str(path))
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"cannot write {path}: {error}; give another rerun=PATH") from error
        self._waiting: queue.Queue[tuple[str, float, Any] | None] = queue.Queue(_MAX_WAITING)
        self.num_logged = self.num_dropped = 0
        self._name_columns()
        self._thread = threading.Thread(target=self._write, name="rerun", daemon=True)
        self._thread.start()

    def picture(self, camera: str, jpeg: bytes, time_s: float) -> None:
        """Takes a camera's picture."""
        self._put(f"cameras/{camera}", time_s, jpeg)

    def vector(self, name: str, values: FloatArray, time_s: float) -> None:
        """Takes a row of numbers: state, action, ..."""
        self._put(name, time_s, values)

    def text(self, name: str, line: str, time_s: float) -> None:
        """Takes a line of text: the instruction, the reason of a hold."""
        self._put(name, time_s, line)

    def close(self) -> dict[str, Any]:
        """Writes what is left, and returns how much was logged and dropped."""
        self._waiting.put(None)
        self._thread.join()
        self._recording.flush()
        self._recording.disconnect()
        return {"logged": self.num_logged, "dropped": self.num_dropped}

    def _put(self, name: str, time_s: float, value: Any) -> None:
        while True:
            try:
                self._waiting.put_nowait((name, time_s, value))
            except queue.Full:
                self._drop_oldest()
            else:
                return

    def _drop_oldest(self) -> None:
        try:
            self._waiting.get_nowait()
            self.num_dropped += 1
        except queue.Empty:
            return

    def _name_columns(self) -> None:
        for path, names in (("state", TOOL_POSE_7D.names), ("action", END_EFFECTOR_DELTA_7D.names)):
            lines = self._rerun.SeriesLines(names=list(names))
            self._recording.log(path, lines, static=True)

    def _write(self) -> None:
        rerun, recording = self._rerun, self._recording
        while (entry := self._waiting.get()) is not None:
            name, time_s, value = entry
            recording.set_time("drive", duration=time_s)
            match value:
                case bytes():
                    shown = rerun.EncodedImage(contents=value, media_type="image/jpeg")
                case str():
                    shown = rerun.TextLog(value)
                case _:
                    shown = rerun.Scalars(value)
            recording.log(name, shown)
            self.num_logged += 1
