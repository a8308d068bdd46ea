"""A few shared numbers that each process may look at any time: who is alive, what is asked for.

Every number has one writer.
"""

from __future__ import annotations

import contextlib
from enum import IntEnum
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Word(IntEnum):
    """Place of each number; an aligned 8-byte store is never seen half-done."""

    STOP = 0  # 1: everybody finishes (written by the supervisor)
    EMERGENCY_STOP = 1  # number of emergency stops asked for (supervisor)
    EMERGENCY_RESET = 2  # number of resets asked for (supervisor)
    POLICY_ALIVE = 3  # 0: the policy process has ended (supervisor)
    CONTROL_TICK = 4  # index of the last tick (written by the control process)
    STALL_BEGAN = 5  # instant at which an injected stall began, s (written by the policy process)


class Board:
    """The numbers in this process's memory; `SharedBoard` keeps them in shared memory."""

    def __init__(self, buffer: memoryview | bytearray | None = None) -> None:
        memory = bytearray(8 * len(Word)) if buffer is None else buffer
        self._words: NDArray[np.float64] = np.frombuffer(memory, dtype=np.float64)[: len(Word)]

    def __getitem__(self, word: Word) -> float:
        return float(self._words[word])

    def __setitem__(self, word: Word, value: float) -> None:
        self._words[word] = value

    def release(self) -> None:
        with contextlib.suppress(AttributeError):
            del self._words


class SharedBoard:
    """A board in named shared memory; picklable like `SharedChannel`, and unlinked by the process that made it."""

    def __init__(self) -> None:
        self._memory = shared_memory.SharedMemory(create=True, size=8 * len(Word))
        self.name = self._memory.name
        self.board = Board(self._memory.buf)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.name = state["name"]
        self._memory = shared_memory.SharedMemory(name=self.name)
        self.board = Board(self._memory.buf)

    def close(self) -> None:
        self.board.release()
        self._memory.close()

    def unlink(self) -> None:
        """Closes the memory and gives it back to the system; a second call does nothing."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()
