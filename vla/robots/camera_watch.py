"""The newest picture of each camera, when it was captured, and whether a camera has stopped."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.robots.lerobot_checks import DRIVER_ERRORS
from vla.types import ImageArray


@dataclass
class _Frame:
    image: ImageArray
    captured_at_s: float
    changed_at_s: float
    checksum: int
    trouble: str = ""


class CameraWatch:
    """Looks at LeRobot's cameras without ever waiting for one.

    A camera that hangs gives no frame, or the same bytes again and again: sensors are noisy, so two real pictures are
    never the same.
    """

    def __init__(self, longest_still_s: float) -> None:
        self._longest_still_s = longest_still_s
        self._frames: dict[str, _Frame] = {}

    def look(self, cameras: Mapping[str, Any]) -> None:
        """Takes the newest frame of each camera."""
        for name, camera in cameras.items():
            last = self._frames.get(name)
            try:
                image = camera.read_latest()
            except DRIVER_ERRORS as error:
                if last is not None:
                    last.trouble = " ".join(str(error).split())
                continue
            if last is None or last.image is not image:
                self._frames[name] = _frame(camera, image, last)

    def frames(self) -> dict[str, tuple[ImageArray, float]]:
        """Returns the newest picture of each camera and when it was captured, time.monotonic."""
        return {name: (frame.image, frame.captured_at_s) for name, frame in self._frames.items()}

    @property
    def fault(self) -> str:
        """Names a camera that has stopped; empty when none has."""
        now_s = time.monotonic()
        for name, frame in self._frames.items():
            still_s = now_s - frame.changed_at_s
            if still_s > self._longest_still_s:
                why = f" ({frame.trouble})" if frame.trouble else ""
                return f"camera {name!r} has shown the same picture for {still_s:.1f} s{why}"
        return ""


def _frame(camera: Any, image: ImageArray, last: _Frame | None) -> _Frame:
    now_s, checksum = time.monotonic(), zlib.crc32(np.ascontiguousarray(image))
    # LeRobot stamps frames with time.perf_counter, which on Linux is the clock of time.monotonic.
    captured_at_s = float(getattr(camera, "latest_timestamp", None) or now_s)
    is_same = last is not None and last.checksum == checksum
    changed_at_s = last.changed_at_s if last is not None and is_same else now_s
    return _Frame(image, captured_at_s, changed_at_s, checksum)
