"""The newest message from one process to another through shared memory; neither side ever waits for the other.

A channel is a small ring of slots, each guarded by its own sequence number (a seqlock), and a header that names the
newest. The writer fills the slot after the newest and then moves the header; the reader copies the newest slot out and
checks that nothing changed meanwhile. With several slots a reader is disturbed only by a writer that laps it, and a
writer that dies half-way leaves the last whole message readable.

Python cannot place memory barriers, so the order of stores is the processor's (kept on x86-64, not on ARM). Every
message therefore carries a checksum: a torn copy is thrown away and read again whatever the memory model.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.errors import RobotError

_ALIGNMENT = 64  # a cache line: the header and the slots never share one
_NUM_SLOTS = 4
_NUM_ATTEMPTS = 3


@dataclass(frozen=True)
class Field:
    """One entry of a message: a numpy array of fixed shape."""

    shape: tuple[int, ...] = ()
    dtype: str = "float64"


Layout = Mapping[str, Field]


@dataclass(frozen=True)
class Message:
    """One message as read; arrays are the reader's own copy, valid until it reads the next one."""

    sequence: int
    values: dict[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.values[name]

    def number(self, name: str) -> float:
        return float(self.values[name])

    def integer(self, name: str) -> int:
        return int(self.values[name])


class Channel:
    """Writes and reads messages of one layout in a buffer; one writer, any number of readers."""

    def __init__(self, layout: Layout, buffer: memoryview | bytearray | None = None) -> None:
        """Uses `buffer` of `nbytes_for(layout)` zeroed bytes; None = private memory, for both sides in one process."""
        self.layout = dict(layout)
        self._offsets, payload = _offsets(layout)
        stride = _ALIGNMENT + payload
        if buffer is None:
            buffer = bytearray(nbytes_for(layout))
        memory = np.frombuffer(buffer, dtype=np.uint8)[: nbytes_for(layout)]
        self._newest = memory[:8].view(np.int64)
        starts = [_ALIGNMENT + i * stride for i in range(_NUM_SLOTS)]
        self._marks = [
            memory[s : s + 16].view(np.int64) for s in starts
        ]  # sequence number, checksum
        self._payloads = [memory[s + _ALIGNMENT : s + stride] for s in starts]
        self._slots = [self._views(slot) for slot in self._payloads]
        self._copy: NDArray[np.uint8] = np.zeros(payload, dtype=np.uint8)
        self._copied = self._views(self._copy)
        self._last_read = 0

    def publish(self, **values: Any) -> int:
        """Writes one message with all fields of the layout and returns its sequence number (1, 2, ...)."""
        if values.keys() != self.layout.keys():
            raise RobotError(
                f"a message has the fields {sorted(self.layout)}; got {sorted(values)}"
            )
        sequence = int(self._newest[0]) + 1
        index = sequence % _NUM_SLOTS
        mark = self._marks[index]
        mark[0] = 0  # being written
        for name, view in self._slots[index].items():
            view[...] = values[name]
        mark[1] = zlib.crc32(self._payloads[index])
        mark[0] = sequence
        self._newest[0] = sequence
        return sequence

    def read_new(self) -> Message | None:
        """Returns the newest message when there is one that this reader has not had; None otherwise. Never waits."""
        for _ in range(_NUM_ATTEMPTS):
            newest = int(self._newest[0])
            if newest <= self._last_read:
                return None
            mark = self._marks[newest % _NUM_SLOTS]
            checksum = int(mark[1])
            if int(mark[0]) != newest:
                continue
            self._copy[...] = self._payloads[newest % _NUM_SLOTS]
            if int(mark[0]) == newest and zlib.crc32(self._copy) == checksum:
                self._last_read = newest
                return Message(newest, self._copied)
        return None  # lapped three times in a row: the next look will do

    def read_next(self) -> Message | None:
        """Returns the oldest message that this reader has not had and that is still whole; None without one.

        For a reader that wants every message: it may fall behind by two.
        """
        newest = int(self._newest[0])
        for number in range(max(self._last_read + 1, newest - _NUM_SLOTS + 2, 1), newest):
            mark = self._marks[number % _NUM_SLOTS]
            checksum = int(mark[1])
            self._copy[...] = self._payloads[number % _NUM_SLOTS]
            if int(mark[0]) == number and zlib.crc32(self._copy) == checksum:
                self._last_read = number
                return Message(number, self._copied)
        return self.read_new()

    def release(self) -> None:
        """Lets go of the buffer; the channel cannot be used afterwards."""
        for name in ("_newest", "_marks", "_payloads", "_slots"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)

    def _views(self, memory: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        views: dict[str, NDArray[Any]] = {}
        for name, field in self.layout.items():
            dtype, nbytes = _dtype(field), _nbytes(field)
            start = self._offsets[name]
            views[name] = memory[start : start + nbytes].view(dtype).reshape(field.shape)
        return views


class SharedChannel:
    """A channel in named shared memory: picklable, so that it can be handed to a process that is being started.

    The process that makes it calls `unlink` when all is over; the others only `close`.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = dict(layout)
        self._memory = shared_memory.SharedMemory(create=True, size=nbytes_for(layout))
        self.name = self._memory.name
        self.channel = Channel(layout, self._memory.buf)

    def __getstate__(self) -> dict[str, Any]:
        return {"layout": self._layout, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._layout, self.name = state["layout"], state["name"]
        self._memory = shared_memory.SharedMemory(name=self.name)
        self.channel = Channel(self._layout, self._memory.buf)

    def close(self) -> None:
        self.channel.release()
        self._memory.close()

    def unlink(self) -> None:
        """Closes the memory and gives it back to the system; a second call does nothing."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()


def nbytes_for(layout: Layout) -> int:
    """Returns how many bytes a channel of this layout takes."""
    return _ALIGNMENT + _NUM_SLOTS * (_ALIGNMENT + _offsets(layout)[1])


def _offsets(layout: Layout) -> tuple[dict[str, int], int]:
    offsets: dict[str, int] = {}
    end = 0
    for name, field in layout.items():
        offsets[name] = end
        end += -(-_nbytes(field) // _ALIGNMENT) * _ALIGNMENT
    return offsets, end


def _dtype(field: Field) -> np.dtype[Any]:
    return np.dtype(field.dtype)


def _nbytes(field: Field) -> int:
    return int(np.prod(field.shape, dtype=np.int64)) * _dtype(field).itemsize
