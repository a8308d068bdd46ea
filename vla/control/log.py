"""One row per servo tick, in memory that is set aside before the loop starts, and the holds with their reasons."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.checks import Check
from vla.types import END_EFFECTOR_DELTA_7D

_MAX_HOLDS_LISTED = 200


class Mode(IntEnum):
    """What the arm does at a tick."""

    START = 0  # at rest: the first action of the episode has not arrived, or the episode is over
    MOVE = 1  # carries out an action
    WAIT = 2  # stands at the end of the last action; the next chunk is still within its time
    HOLD = 3  # held by a check


@dataclass
class Hold:
    """One stretch of ticks in which a check held the arm.

    Attributes:
        check: key of the check that began it.
        message: its limit, value and unit, as of the last of these ticks.
        began_at_s: monotonic clock.
        ticks: how long it lasted, servo ticks.
    """

    check: str
    message: str
    began_at_s: float
    ticks: int = 1


class TickLog:
    """Columns by name; `rows()` gives what was filled. When it is full, further ticks are counted but not kept."""

    def __init__(self, capacity: int, num_joints: int) -> None:
        widths = {
            "joints": num_joints,
            "velocity": num_joints,
            "command": num_joints,
            "start": num_joints,
            "goal": 3,
            "tool": 3,
            "action": END_EFFECTOR_DELTA_7D.width,
        }
        scalars = ("time_s", "lateness_s", "work_s", "gripper", "action_age_s")
        counts = (
            "index",
            "skipped",
            "mode",
            "segment",
            "episode",
            "consumed",
            "chunk",
            "index_in_chunk",
        )
        # Filled, not merely reserved: a first touch inside the loop would fault pages in.
        self._columns: dict[str, NDArray[Any]] = {
            **{name: np.full((capacity, width), np.nan) for name, width in widths.items()},
            **{name: np.full(capacity, np.nan) for name in scalars},
            **{name: np.full(capacity, -1, dtype=np.int64) for name in counts},
        }
        self._capacity = capacity
        self.num_ticks = 0
        self.holds: list[Hold] = []
        self.num_holds = 0
        self.holds_by_check: dict[str, int] = {}
        self._is_holding = False

    def add(self, **row: Any) -> None:
        """Keeps one tick; columns that are not given stay empty."""
        if self.num_ticks < self._capacity:
            for name, value in row.items():
                self._columns[name][self.num_ticks] = value
        self.num_ticks += 1

    def hold(self, check: Check, message: str, now_s: float) -> None:
        """Counts a tick in which the arm is held; a new hold begins when the last tick was none, or another check's."""
        current = self.holds[-1] if self.holds else None
        if self._is_holding and current is not None and current.check == check.value:
            current.ticks, current.message = current.ticks + 1, message
            return
        self._is_holding = True
        self.num_holds += 1
        self.holds_by_check[check.value] = self.holds_by_check.get(check.value, 0) + 1
        if len(self.holds) == _MAX_HOLDS_LISTED:
            self.holds.pop(0)
        self.holds.append(Hold(check.value, message, now_s))

    def no_hold(self) -> None:
        self._is_holding = False

    def rows(self) -> dict[str, NDArray[Any]]:
        """Returns every column, (ticks, ...)."""
        return {name: column[: self.num_ticks] for name, column in self._columns.items()}

    def save(self, path: Path) -> None:
        """Writes the columns as a compressed .npz."""
        np.savez_compressed(path, **self.rows())  # pyright: ignore[reportArgumentType]

    def hold_facts(self) -> dict[str, Any]:
        """Returns the number of holds, how many each check began, and the last ones in full."""
        return {
            "holds": self.num_holds,
            "hold_reasons": dict(self.holds_by_check),
            "hold_list": [asdict(hold) for hold in self.holds],
        }
