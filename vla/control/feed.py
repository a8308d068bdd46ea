"""What the control process shows to those who only look on: every tick of the last seconds, and the newest hold.

Rows go into a ring in shared memory. The writer never waits and never learns whether anybody reads; a reader that
falls behind loses the oldest rows and is told how many. A row carries its number at both ends, so that one that is
overwritten while it is copied is thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.channel import Channel, Field, Layout, SharedChannel
from vla.control.checks import Check
from vla.control.log import TickLog
from vla.types import END_EFFECTOR_DELTA_7D

CAPACITY = 6144  # ticks: 12 s at 500 Hz, a minute at 100 Hz
CHECKS = tuple(check.value for check in Check)
_SCALARS = (
    "time_s", "lateness_s", "work_s", "skipped", "mode", "episode", "consumed", "gripper", "chunk", "index_in_chunk",
    "action_age_s",
)  # fmt: skip
_ACTION_WIDTH = END_EFFECTOR_DELTA_7D.width
_MESSAGE_BYTES = 400
_REPEAT_S = 0.1  # the message of a hold that lasts is shown again this often
_HOLD: Layout = {
    "check": Field(dtype="int64"),  # place in CHECKS
    "message": Field((_MESSAGE_BYTES,), "uint8"),
    "began_at_s": Field(),
    "counts": Field((len(CHECKS),), "int64"),  # holds so far, by check
}


@dataclass(frozen=True, kw_only=True)
class ShownHold:
    """The newest hold: which check, what it said last, when it began, and how many holds each check has begun."""

    check: str
    message: str
    began_at_s: float
    counts: dict[str, int]


class TickRing:
    """The last ticks as rows of numbers; one writer, any number of readers, each with a `TickRing` of its own."""

    def __init__(self, num_joints: int, buffer: memoryview | bytearray | None = None) -> None:
        """Uses `buffer` of `nbytes(num_joints)` zeroed bytes; None = private memory."""
        self._places = _places(num_joints)
        memory = bytearray(self.nbytes(num_joints)) if buffer is None else buffer
        width = _width(num_joints)
        numbers = np.frombuffer(memory, dtype=np.float64)[: 1 + CAPACITY * width]
        self._newest: NDArray[np.float64] = numbers[:1]
        self._rows: NDArray[np.float64] = numbers[1:].reshape(CAPACITY, width)
        self._last_read = 0
        self.num_lost = 0  # rows that were overwritten before this reader had them

    @staticmethod
    def nbytes(num_joints: int) -> int:
        """Returns the size of the buffer."""
        return 8 * (1 + CAPACITY * _width(num_joints))

    def add(self, values: Mapping[str, Any]) -> None:
        """Writes one row; names that the ring does not know are passed over, missing ones are not a number."""
        number = float(self._newest[0]) + 1.0
        row = self._rows[int(number) % CAPACITY]
        row[0] = row[-1] = 0.0  # being written
        for name, place in self._places.items():
            row[place] = values.get(name, np.nan)
        row[-1] = row[0] = number
        self._newest[0] = number

    def read_new(self) -> dict[str, NDArray[np.float64]]:
        """Returns the columns (ticks, ...) of the rows that this reader has not had, oldest first; never waits."""
        newest = int(self._newest[0])
        first = max(self._last_read + 1, newest - CAPACITY + 2)
        numbers = np.arange(first, newest + 1)
        rows = self._rows[numbers % CAPACITY]
        is_whole = (rows[:, 0] == numbers) & (rows[:, -1] == numbers)
        self.num_lost += first - self._last_read - 1 + int((~is_whole).sum())
        self._last_read = max(newest, self._last_read)
        whole = rows[is_whole]
        return {name: whole[:, place] for name, place in self._places.items()}

    def skip(self) -> None:
        """Passes over everything that was written so far, without counting it as lost."""
        self._last_read = int(self._newest[0])

    def release(self) -> None:
        """Lets go of the buffer; the ring cannot be used afterwards."""
        for name in ("_newest", "_rows"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)


class Feed:
    """The ring of ticks and the newest hold, as one process sees them."""

    def __init__(self, ticks: TickRing, holds: Channel | None = None) -> None:
        self.ticks = ticks
        self._holds = Channel(_HOLD) if holds is None else holds

    def show_hold(
        self, check: str, message: str, began_at_s: float, counts: dict[str, int]
    ) -> None:
        """Publishes the newest hold."""
        text = np.zeros(_MESSAGE_BYTES, np.uint8)
        raw = message.encode()[:_MESSAGE_BYTES]
        text[: len(raw)] = np.frombuffer(raw, np.uint8)
        self._holds.publish(
            check=CHECKS.index(check),
            message=text,
            began_at_s=began_at_s,
            counts=[counts.get(name, 0) for name in CHECKS],
        )

    def read_hold(self) -> ShownHold | None:
        """Returns the newest hold when this reader has not had it; None otherwise."""
        message = self._holds.read_new()
        if message is None:
            return None
        text = message["message"].tobytes().rstrip(b"\0").decode(errors="ignore")
        counts = zip(CHECKS, message["counts"].tolist(), strict=True)
        return ShownHold(
            check=CHECKS[message.integer("check")],
            message=text,
            began_at_s=message.number("began_at_s"),
            counts={name: count for name, count in counts if count},
        )


class SharedFeed:
    """A feed in named shared memory; picklable like `SharedChannel`, and unlinked by the process that made it."""

    def __init__(self, num_joints: int) -> None:
        self.num_joints = num_joints
        self._memory = shared_memory.SharedMemory(create=True, size=TickRing.nbytes(num_joints))
        self._holds = SharedChannel(_HOLD)
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self._memory.name, "num_joints": self.num_joints, "holds": self._holds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.num_joints, self._holds = state["num_joints"], state["holds"]
        self._memory = shared_memory.SharedMemory(name=state["name"])
        self._open()

    def close(self) -> None:
        self.feed.ticks.release()
        self._memory.close()
        self._holds.close()

    def unlink(self) -> None:
        """Closes the memory and gives it back to the system; a second call does nothing."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()
        self._holds.unlink()

    def _open(self) -> None:
        self.feed = Feed(TickRing(self.num_joints, self._memory.buf), self._holds.channel)


class ShownLog(TickLog):
    """A tick log that shows every row and every hold to onlookers as well."""

    def __init__(self, capacity: int, num_joints: int, feed: Feed) -> None:
        super().__init__(capacity, num_joints)
        self._feed = feed
        self._shown_at_s = float("-inf")

    def add(self, **row: Any) -> None:
        super().add(**row)
        self._feed.ticks.add(row)

    def hold(self, check: Check, message: str, now_s: float) -> None:
        num_before = self.num_holds
        super().hold(check, message, now_s)
        if self.num_holds > num_before or now_s - self._shown_at_s >= _REPEAT_S:
            self._shown_at_s = now_s
            began_at_s = self.holds[-1].began_at_s
            self._feed.show_hold(check.value, message, began_at_s, self.holds_by_check)


def _places(num_joints: int) -> dict[str, Any]:
    """Returns where each column stands in a row: a number for a scalar, a slice for a vector."""
    places: dict[str, Any] = {name: 1 + i for i, name in enumerate(_SCALARS)}
    start = 1 + len(_SCALARS)
    vectors = {
        "tool": 3,
        "goal": 3,
        "joints": num_joints,
        "velocity": num_joints,
        "command": num_joints,
    }
    vectors["action"] = _ACTION_WIDTH
    for name, width in vectors.items():
        places[name] = slice(start, start + width)
        start += width
    return places


def _width(num_joints: int) -> int:
    return 2 + len(_SCALARS) + 6 + 3 * num_joints + _ACTION_WIDTH
