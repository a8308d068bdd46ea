"""How much memory processes hold, looked at from outside while they work."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_EVERY_S = 1.0
_SETTLED_SHARE = (
    0.5  # of the samples, at the beginning, in which allocators and caches may still fill
)


def private_mb(pid: int) -> float | None:
    """Returns what a process alone holds in memory, MB; None when it is gone or the system does not say.

    Pages shared with others, of libraries and channels of fixed size, come in one by one as they are first touched;
    counting them would look like growth.
    """
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
        pages = int(fields[1]) - int(fields[2])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class MemoryWatch:
    """Takes one sample per process and second. Call `poll` as often as you like."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._samples: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self._last_s = float("-inf")

    def poll(self, now_s: float | None = None) -> None:
        """Takes a sample when the last is a second old."""
        now_s = time.monotonic() if now_s is None else now_s
        if now_s - self._last_s < _EVERY_S:
            return
        self._last_s = now_s
        for name, pid in self._pids.items():
            size = private_mb(pid)
            if size:  # a process that is just ending holds none
                self._samples[name].append((now_s, size))

    def facts(self) -> dict[str, Any]:
        """Returns for each process MB at the start, at the end and at most, and how it grows once it has settled."""
        return {name: _facts(samples) for name, samples in self._samples.items() if samples}


def _facts(samples: list[tuple[float, float]]) -> dict[str, float]:
    size = [mb for _, mb in samples]
    settled = np.array(samples[round(_SETTLED_SHARE * len(samples)) :])
    slope = 0.0
    if len(settled) >= 3:
        time_s, size_mb = settled[:, 0] - settled[:, 0].mean(), settled[:, 1]
        slope = 60 * float(time_s @ size_mb) / float(time_s @ time_s)
    return {
        "start_mb": size[0],
        "settled_mb": float(settled[0, 1]),
        "end_mb": size[-1],
        "max_mb": max(size),
        "growth_mb_per_min": slope,
    }
