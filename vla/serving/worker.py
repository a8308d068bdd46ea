"""One thread that computes, and turns at it in the order in which clients asked."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vla.errors import ServingError

_LONGEST_FAREWELL_S = 5.0


class LateError(ServingError):
    """An answer took longer than a request may take."""


class Worker:
    """Runs one job at a time in a thread of its own; the event loop meanwhile goes on listening.

    Every client has at most one job waiting here, so the queue is as long as there are clients.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._turn = asyncio.Lock()  # hands out turns in the order of asking
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._busy_since_s: float | None = None
        self._thread.start()

    @property
    def busy_for_s(self) -> float:
        """How long the present job has taken; 0 when there is none."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def run[T](self, begin: Callable[[], Callable[[], T]], deadline_s: float) -> T:
        """Returns what a job returns, and raises what it raises, when its turn has come.

        A job that is under way cannot be stopped: when its client gives up, what it returns is dropped, and the next
        client's turn comes when it is done.

        Args:
            begin: called in the event loop when the turn has come; returns the job, which runs in the thread.
            deadline_s: longest wait for turn and job together.

        Raises:
            LateError: there was no answer within `deadline_s`.
        """
        limit = asyncio.timeout(deadline_s)
        try:
            async with limit:
                await self._turn.acquire()
                return await asyncio.shield(self._start(begin()))
        except TimeoutError as error:
            if not limit.expired():  # the job's own
                raise
            raise LateError(
                f"no answer within {deadline_s:g} s; ask less often, or raise limits.deadline_s"
            ) from error

    def stop(self) -> None:
        """Ends the thread after its present job; gives up on one that takes longer than a few seconds."""
        self._jobs.put(None)
        self._thread.join(_LONGEST_FAREWELL_S)

    def _start[T](self, job: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(self._finish)

        def compute() -> None:
            settle: Callable[[Any], None] = done.set_result
            try:
                outcome: Any = job()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked
                is_allowed = not isinstance(error, StopIteration)  # a future cannot carry that one
                settle, outcome = done.set_exception, error if is_allowed else RuntimeError(error)
            with suppress(RuntimeError):  # the loop has ended, nobody waits any more
                loop.call_soon_threadsafe(lambda: None if done.done() else settle(outcome))

        self._busy_since_s = time.monotonic()
        self._jobs.put(compute)
        return done

    def _finish(self, done: asyncio.Future[Any]) -> None:
        self._busy_since_s = None
        self._turn.release()
        if not done.cancelled():
            done.exception()  # seen, even where its client has given up

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # keeps no picture until the next one comes
