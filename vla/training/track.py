"""Where the numbers of a run go: a JSON line each, the terminal, and whatever the command line adds."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

Metrics = dict[str, float]


class Tracker(Protocol):
    """Takes flat metrics by step."""

    def log(self, metrics: Metrics, step: int) -> None: ...

    def close(self) -> None: ...


class JsonlTracker:
    """Appends one JSON object a call; on resume, lines past the step resumed from are dropped."""

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_jsonl(path) if row["step"] <= resume_step] if path.exists() else []
        self._file = path.open("w", encoding="utf-8")
        for row in kept:
            self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def log(self, metrics: Metrics, step: int) -> None:
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class TrackerGroup:
    """Hands every call to each of its trackers; one that fails is dropped with a warning, the run goes on."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log(self, metrics: Metrics, step: int) -> None:
        for tracker in list(self._trackers):
            try:
                tracker.log(metrics, step)
            except Exception as error:  # a logging service must never end a training run
                logger.warning("%s stopped: %s", type(tracker).__name__, error)
                self._trackers.remove(tracker)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def read_jsonl(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a metrics file; a last line cut short by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
