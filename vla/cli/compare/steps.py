"""Steps of a comparison: a verb with its settings, run once, kept, and shared by every arm that needs the same.

A step's folder is named after what it does and after what it stands on, so that a second run of the comparison finds
what is done, a changed setting runs anew, and two arms that start from the same tower train it once.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vla.errors import VlaError

logger = logging.getLogger(__name__)

DONE, SPENT, LOCK = "done.json", "spent.json", "lock"


class StepError(VlaError):
    """A step of a comparison did not end well; the others can go on."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One verb with its settings.

    Attributes:
        name: first part of the folder's name.
        verb: a word that `vla` accepts.
        settings: its overrides; `{made}` stands for the path of what the step makes, `{NAME}` for that of step NAME of
            `needs`.
        makes: where in its folder that is, "" for the folder itself.
        needs: steps that must be done before.
    """

    name: str
    verb: str
    settings: Sequence[str]
    makes: str = ""
    needs: Mapping[str, Step] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """The folder's name: equal for steps that do the same on the same."""
        needs = {name: step.key for name, step in self.needs.items()}
        text = json.dumps([self.verb, list(self.settings), self.makes, needs], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def chain(self) -> dict[str, Step]:
        """Returns the step and all that it stands on, by key, in an order in which they can run."""
        found: dict[str, Step] = {}
        for step in self.needs.values():
            found |= step.chain()
        return found | {self.key: self}


@dataclass(frozen=True, kw_only=True)
class Done:
    """A step that ended well; cpu_seconds are of all its processes and of every attempt that could be counted."""

    step: Step
    folder: Path
    command: Sequence[str]
    summary: Mapping[str, Any]
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one attempt ended; `summary` is what the verb said."""

    summary: Mapping[str, Any]
    cpu_seconds: float


class Runner(Protocol):
    """Runs one verb in a folder."""

    def __call__(self, verb: str, settings: Sequence[str], folder: Path) -> Ended: ...


@dataclass(kw_only=True)
class Workshop:
    """Runs steps in folders below `root`; what is done there is not done again."""

    root: Path
    runner: Runner
    _failed: dict[str, StepError] = field(default_factory=dict, init=False)

    def make(self, step: Step) -> Done:
        """Returns the step's result, after running it and what it needs as far as they are not done.

        Another process that makes the same step at the same time is waited for.

        Raises:
            StepError: it, or what it needs, ended badly; its folder says why, and the next attempt goes on there.
        """
        if step.key in self._failed:  # many measurements may want one model: it is tried once
            raise self._failed[step.key]
        needed = {name: self.make(one) for name, one in step.needs.items()}
        folder = self.root / step.key
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / LOCK):
            if (known := self.done(step)) is not None:
                return known
            places = {name: _value(one.folder / one.step.makes) for name, one in needed.items()}
            places["made"] = _value(folder / step.makes)
            settings = [_filled(text, places) for text in step.settings]
            ended = self._attempt(step, settings, folder)
            content = {
                "verb": step.verb,
                "settings": settings,
                "summary": dict(ended.summary),
                "cpu_seconds": spend(folder, 0.0),
            }
            _write(folder / DONE, content)
        return Done(
            step=step,
            folder=folder,
            command=["vla", step.verb, *settings],
            summary=json.loads((folder / DONE).read_text(encoding="utf-8"))["summary"],
            cpu_seconds=content["cpu_seconds"],
        )

    def done(self, step: Step) -> Done | None:
        """Returns the step's result if it is done, else None."""
        folder = self.root / step.key
        try:
            content = json.loads((folder / DONE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Done(
            step=step,
            folder=folder,
            command=["vla", content["verb"], *content["settings"]],
            summary=content["summary"],
            cpu_seconds=content["cpu_seconds"],
        )

    def _attempt(self, step: Step, settings: Sequence[str], folder: Path) -> Ended:
        logger.info("%s: vla %s %s", step.key, step.verb, " ".join(settings))
        ended = self.runner(step.verb, settings, folder)
        spend(folder, ended.cpu_seconds)
        if ended.summary.get("status", "ok") != "ok" or ended.summary.get("exit_code"):
            reason = ended.summary.get("error") or ended.summary.get("status")
            error = StepError(f"{step.key}: {reason}; look into {folder}")
            self._failed[step.key] = error
            raise error
        return ended


def _filled(text: str, places: Mapping[str, str]) -> str:
    try:
        return text.format(**places)
    except KeyError as error:
        raise VlaError(f"{text!r} names {error}; the step needs {sorted(places)}") from None


def _value(path: Path) -> str:
    """Returns a path as an override's value."""
    text = str(path)
    if all(letter.isalnum() or letter in "./-_" for letter in text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def spend(folder: Path, cpu_seconds: float) -> float:
    """Adds to what the step has cost so far, and returns the sum."""
    path = folder / SPENT
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cpu_seconds": 0.0}
    total = before["cpu_seconds"] + cpu_seconds
    if cpu_seconds:
        _write(path, {"cpu_seconds": total})
    return total


def _write(path: Path, content: Any) -> None:
    from vla.cli.run_directory import write_json

    write_json(path, content)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a file's lock, which the system takes back when the process ends, however it ends."""
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
