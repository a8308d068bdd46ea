"""Helper processes that do not outlive the one they work for."""

from __future__ import annotations

import multiprocessing
import os
import threading


def exit_with_parent() -> None:
    """Ends this process once its parent is gone, however it went; returns at once.

    A process that was spawned to work through a queue would otherwise wait for ever after a kill -9 of the
    process that fills it. Without a parent (in the main process) nothing happens.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="exit with parent", daemon=True).start()
