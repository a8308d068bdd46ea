"""outputs/<verb>/<time>/: the resolved config, the log and summary.json of one run, and the `latest` link to it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from vla.data import atomic
from vla.errors import ConfigError


def output_root(given: str | None = None) -> Path:
    """Returns where runs are kept: `given`, else $VLA_OUTPUTS, else ./outputs."""
    return Path(given or os.environ.get("VLA_OUTPUTS") or "outputs").expanduser().absolute()


def create(parent: Path, now: datetime | None = None) -> Path:
    """Returns a new folder `parent/<YYYY-mm-dd_HH-MM-SS>`; two runs of the same second get a counter."""
    stamp = (now or datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
    _make(parent)
    for attempt in range(1, 1000):
        directory = parent / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            directory.mkdir()
            return directory
        except FileExistsError:
            continue
    raise ConfigError(f"{parent} already holds 999 runs of {stamp}; give another output_root")


def adopt(directory: Path) -> Path:
    """Returns `directory`, made if needed: a run that goes on where an earlier one stopped."""
    _make(directory)
    return directory


def point_latest(directory: Path) -> None:
    """Points `latest` beside `directory` at it; readers see the old link or the new one, never none."""
    link = directory.parent / "latest"
    if link.exists() and not link.is_symlink():
        raise ConfigError(f"{link} is a real folder, not the link to the last run; move it away")
    temporary = directory.parent / f".latest-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(directory.name, target_is_directory=True)
    os.replace(temporary, link)


def latest(parent: Path) -> Path | None:
    """Returns the folder that `parent/latest` points at, or None when there is no earlier run."""
    link = parent / "latest"
    return link.resolve() if link.is_dir() else None


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as JSON in one step; numpy values become plain and numbers that are not finite null."""
    atomic.write_json(path, _plain(content))


def write_text(path: Path, text: str) -> None:
    """Writes `text` in one step."""
    with atomic.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class RunLog:
    """Sends records of every logger to `run.log` in the run's folder, and to the terminal from INFO on."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "run.log"
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> RunLog:
        to_file = logging.FileHandler(self._path, encoding="utf-8")
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        formatter.converter = time.gmtime
        to_file.setFormatter(formatter)
        to_terminal = _terminal_handler()
        to_terminal.addFilter(_is_ours_or_warning)
        self._handlers = [to_file, to_terminal]
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.INFO)
        for handler in self._handlers:
            root.addHandler(handler)
        logging.captureWarnings(True)
        return self

    def __exit__(self, *_: object) -> None:
        logging.captureWarnings(False)
        root = logging.getLogger()
        root.setLevel(self._level)
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()


def _terminal_handler() -> logging.Handler:
    from rich import get_console
    from rich.logging import RichHandler

    console = get_console()
    if not console.is_terminal:  # a file or a pipe: one record, one line
        return logging.StreamHandler()
    return RichHandler(
        console=console, show_time=False, show_level=False, show_path=False, highlighter=None
    )


def _is_ours_or_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.split(".")[0] in (
        "vla",
        "envs",
        "policies",
    )


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make {directory} ({error.strerror}); give a writable output_root=PATH"
        ) from error


def _plain(value: Any) -> Any:
    """Returns `value` in what JSON can say; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
