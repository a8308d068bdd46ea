"""The machine and the versions that a result was got with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

VERSIONS = ("vla", "torch", "mujoco", "gymnasium", "lerobot", "numpy")


def environment() -> dict[str, str]:
    """Returns processor, system and the versions that a result depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "processor": f"{_processor()}, {cores} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return facts | {name: _version(name) for name in VERSIONS}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
