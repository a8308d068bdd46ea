"""Batches made ahead of their use, by one thread, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor


def made_ahead[B](make: Callable[[int], B], start: int, end: int, depth: int = 3) -> Iterator[B]:
    """Yields make(start) .. make(end - 1) in order, `depth` ahead, made by one thread."""
    with ThreadPoolExecutor(1, "batches") as maker:
        ready: deque[Future[B]] = deque()
        try:
            for step in range(start, end):
                ready.append(maker.submit(make, step))
                if len(ready) > depth:
                    yield ready.popleft().result()
            while ready:
                yield ready.popleft().result()
        finally:
            for batch in ready:
                batch.cancel()
