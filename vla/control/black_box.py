"""The last ten seconds before a breach, written to disk by a process that looks on.

The control process only adds its rows to a ring in shared memory (vla.control.feed). Whoever supervises it reads them,
keeps ten seconds, and writes them down a second after a check has held the arm: no file is ever opened in the control
loop, and the rows are there even when the control process has died.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.feed import Feed, ShownHold
from vla.control.limits import JointLimits

WINDOW_S = 10.0  # of state that a file holds
_AFTERMATH_S = 1.0  # of these after the breach, so that the braking is seen
MAX_FILES = 20  # of one drive: a check that fails all the time must not fill the disk
UNITS = {
    "time_s": "s, monotonic clock",
    "joints": "rad, measured",
    "velocity": "rad/s, measured",
    "command": "rad, sent",
    "tool": "m, of the command",
    "goal": "m, of the action in progress",
    "mode": "0 start, 1 move, 2 wait, 3 hold",
    "gripper": "opening asked for, 1 open, 0 closed",
}

Rows = dict[str, NDArray[np.float64]]


class BlackBox:
    """Keeps the newest rows of a feed and writes them when a check has held the arm. Call `poll` a few times a second.

    Files: `black_box_NN_<check>.npz` with one column per quantity, (ticks, ...), and a .json of the same name with the
    breach in words, limits and units. Breaches less than ten seconds after the last file share one file: its rows
    reach back to the first of them.

    Attributes:
        files: what was written, oldest first; .npz.
    """

    def __init__(self, feed: Feed, limits: JointLimits, directory: Path) -> None:
        self._feed, self._limits, self._directory = feed, limits, directory
        self._blocks: deque[Rows] = deque()
        self._last_s = 0.0  # instant of the newest row
        self._pending: ShownHold | None = None
        self._written_s = float("-inf")  # newest row of the last file
        self._last_began_s = float("-inf")  # of the last breach that was taken note of
        self.files: list[Path] = []

    def poll(self) -> Path | None:
        """Takes what is new; writes a file, and returns its path, when one is due."""
        self._take_rows()
        hold = self._feed.read_hold()
        if hold is not None and hold.began_at_s > self._last_began_s:
            self._last_began_s = hold.began_at_s
            self._pending = self._pending or hold
        if self._pending is None:
            return None
        due_s = max(
            self._pending.began_at_s + _AFTERMATH_S, self._written_s + WINDOW_S - _AFTERMATH_S
        )
        return self._write(self._pending) if self._last_s >= due_s else None

    def finish(self, reason: str = "") -> Path | None:
        """Writes what is still to be written; with a reason, in any case: the control process has ended by itself."""
        self.poll()
        if reason:
            self._pending = ShownHold(
                check="control_ended", message=reason, began_at_s=self._last_s, counts={}
            )
        return self._write(self._pending) if self._pending is not None else None

    def _take_rows(self) -> None:
        rows = self._feed.ticks.read_new()
        if not len(rows["time_s"]):
            return
        self._blocks.append(rows)
        self._last_s = float(rows["time_s"][-1])
        while self._blocks[0]["time_s"][-1] < self._last_s - WINDOW_S:
            self._blocks.popleft()

    def _write(self, hold: ShownHold) -> Path | None:
        self._pending, self._written_s = None, self._last_s
        if not self._blocks or len(self.files) == MAX_FILES:
            return None
        names = self._blocks[0]
        rows = {name: np.concatenate([block[name] for block in self._blocks]) for name in names}
        is_recent = rows["time_s"] >= self._last_s - WINDOW_S
        rows = {name: column[is_recent] for name, column in rows.items()}
        path = self._directory / f"black_box_{len(self.files) + 1:02d}_{hold.check}.npz"
        np.savez_compressed(path, **rows)  # pyright: ignore[reportArgumentType]
        text = json.dumps(self._describe(hold, rows), indent=2)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        self.files.append(path)
        return path

    def _describe(self, hold: ShownHold, rows: Rows) -> dict[str, Any]:
        limits = self._limits
        return {
            "check": hold.check,
            "message": hold.message,
            "began_at_s": hold.began_at_s,
            "holds_so_far": hold.counts,
            "ticks": len(rows["time_s"]),
            "seconds": float(np.ptp(rows["time_s"])),
            "units": UNITS,
            "joints": list(limits.names),
            "limits": {
                "low_rad": limits.low,
                "high_rad": limits.high,
                "velocity_rad_s": limits.velocity,
                "acceleration_rad_s2": limits.acceleration,
                "jerk_rad_s3": limits.jerk,
                "source": limits.source,
            },
        }
