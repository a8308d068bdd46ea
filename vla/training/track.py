"""Where the numbers of a run go: a JSON line each, the terminal, and whatever the command line adds."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import IO, Any, Protocol

logger = logging.getLogger(__name__)

Metrics = dict[str, float]


class Tracker(Protocol):
    """Takes flat metrics by step."""

    def log(self, metrics: Metrics, step: int) -> None: ...

    def close(self) -> None: ...


class JsonlTracker:
    """Appends one JSON object a call; a resumed run first drops the rows that it is about to write again."""

    def __init__(self, path: Path, *, keep_rows: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file: IO[str] | None = None
        self._kept = read_jsonl(path) if keep_rows and path.exists() else []

    def log(self, metrics: Metrics, step: int) -> None:
        if self._file is None:
            self._file = self._open(step)
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None and not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def _open(self, first_step: int) -> IO[str]:
        kept = [row for row in self._kept if row["step"] < first_step]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(temporary, self._path)
        return self._path.open("a", encoding="utf-8")


class TrackerGroup:
    """Hands every call to each of its trackers; one that fails is dropped with a warning, the run goes on."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log(self, metrics: Metrics, step: int) -> None:
        for tracker in list(self._trackers):
            try:
                tracker.log(metrics, step)
            except Exception as error:  # noqa: BLE001  a logging service must never end a training run
                logger.warning("%s stopped: %s", type(tracker).__name__, error)
                self._trackers.remove(tracker)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file; a last line cut short by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
