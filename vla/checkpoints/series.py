"""The checkpoints of one training run: step-00001000/, step-00002000/, ... and `latest`, a link to the newest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vla.checkpoints.folder import CONFIG
from vla.data.atomic import flush


class CheckpointSeries:
    """Keeps the newest `keep` checkpoints of a run in `folder`; an older one goes only when a newer one is whole."""

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder, self._keep = folder, max(1, keep)

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Lets `write` (e.g. `native.save` with its other arguments bound) put step `step` on disk; returns where."""
        directory = self.folder / f"step-{step:08d}"
        write(directory)
        self._point_latest(directory)
        self._drop_old(directory)
        return directory

    def latest(self) -> Path | None:
        """Returns the newest whole checkpoint, or None before the first."""
        link = self.folder / "latest"
        return link.resolve() if (link / CONFIG).is_file() else None

    def _point_latest(self, directory: Path) -> None:
        temporary = self.folder / f".latest.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(directory.name)
        os.replace(temporary, self.folder / "latest")
        flush(self.folder)

    def _drop_old(self, newest: Path) -> None:
        others = sorted(path for path in self.folder.glob("step-*") if path != newest)
        for path in others[: len(others) - (self._keep - 1)]:
            shutil.rmtree(path)
        for path in self.folder.glob(".step-*"):  # of a process that was killed while writing
            shutil.rmtree(path, ignore_errors=True)
