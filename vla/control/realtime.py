"""Asks the operating system for what a control process needs: priority, locked memory, its own core, no collector."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from dataclasses import dataclass, field

_MCL_CURRENT_AND_FUTURE = 1 | 2
_PR_SET_TIMERSLACK = 29
_SHORTEST_SLACK_NS = 1  # the default lets the kernel end a sleep 50 microseconds late


@dataclass(kw_only=True)
class RealtimeConfig:
    """How the control process asks to be treated."""

    enabled: bool = True  # false: an ordinary process, e.g. to see what it costs
    priority: int = 80  # SCHED_FIFO 1..99; threads of the kernel that must not starve are above 90
    pin_cores: bool = (
        True  # with two cores or more: the last one for control, the others for the policy
    )


@dataclass(frozen=True, kw_only=True)
class Granted:
    """What the process got."""

    fifo: bool = False
    memory_locked: bool = False
    core: int | None = None
    refused: tuple[str, ...] = field(default=())

    @property
    def warning(self) -> str:
        """One line on what was refused and how to permit it; empty when nothing was."""
        if not self.refused:
            return ""
        return (
            f"real-time scheduling is not fully permitted ({'; '.join(self.refused)}): deadlines depend on what else "
            "runs here; allow it with `ulimit -r 99 -l unlimited`, CAP_SYS_NICE and CAP_IPC_LOCK, or run as root"
        )


def split_cores() -> tuple[set[int], set[int]]:
    """Returns (cores of the control process, cores of the policy process): the last one, and the rest if any."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return ({cores[-1]}, set(cores[:-1])) if len(cores) > 1 else (set(cores), set(cores))


def enter_realtime(config: RealtimeConfig) -> Granted:
    """Raises this process as far as permitted and returns what was granted; never fails.

    Call it after everything is loaded and allocated: memory is locked and the garbage collector frozen as they are.
    """
    gc.collect()
    gc.freeze()
    gc.disable()  # the loop makes no reference cycles; a collection in the middle of a tick costs milliseconds
    if not config.enabled:
        return Granted()
    refused: list[str] = []
    locked = _lock_memory(refused)
    fifo = _fifo(config.priority, refused)
    # Without priority a core of one's own means waiting for whoever else is put there.
    core = _pin(refused) if config.pin_cores and fifo else None
    return Granted(fifo=fifo, memory_locked=locked, core=core, refused=tuple(refused))


def leave_realtime() -> None:
    """Makes this an ordinary process again, e.g. to write files when the loop is over."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    gc.enable()


def be_nice(niceness: int, cores: set[int] | None) -> None:
    """Puts the policy process behind the control process and, if given, on its own cores, as far as permitted."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(niceness)
        if cores:
            os.sched_setaffinity(0, cores)


def _pin(refused: list[str]) -> int | None:
    control, others = split_cores()
    if control == others:
        return None
    try:
        os.sched_setaffinity(0, control)
    except OSError as error:
        refused.append(f"own core: {error.strerror}")
        return None
    return next(iter(control))


def _lock_memory(refused: list[str]) -> bool:
    if not sys.platform.startswith("linux"):
        refused.append("mlockall: only on Linux")
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_TIMERSLACK, _SHORTEST_SLACK_NS, 0, 0, 0)
    if libc.mlockall(_MCL_CURRENT_AND_FUTURE) == 0:
        return True
    refused.append(f"mlockall: {os.strerror(ctypes.get_errno())}")
    return False


def _fifo(priority: int, refused: list[str]) -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, AttributeError) as error:
        refused.append(f"SCHED_FIFO {priority}: {getattr(error, 'strerror', None) or error}")
        return False
    return True
