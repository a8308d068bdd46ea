"""`vla demo`: teaches the shipped policy a task it has not learnt, measures it before and after, and drives the arm.

Every phase is another verb with settings that a reader can type; the report shows them. Phases that are done
are kept in `outputs/demo/unfinished` until all are, so the same command goes on after an interruption.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import shlex
import shutil
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla.errors import ConfigError, VlaError

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
CHECKPOINT = Path("train/checkpoints/latest")  # below the folder of the phases
MARGIN_S = 45.0  # for loading policies, the film of the drive and the report
SHORTEST_TRAINING_S = 60.0


@dataclass(kw_only=True)
class DemoConfig:
    """What the demo shows, and how long it may take."""

    task: str = "open_drawer"  # what the policy is to learn: a name that `env=` accepts
    checkpoint: str = "tiny_pick_cube"  # policy to start from, one that cannot do the task yet: shipped, or a path
    demonstrations: int = 150  # episodes of the scripted expert to learn from
    episodes: int = 60  # evaluated before and after, on the same scenes
    seed: int = 2_000_000  # of the first evaluated scene; demonstrations use seeds below 1000000
    robot_seconds: float = 20.0  # time the real-time loop runs
    budget_seconds: float = 660.0  # for everything; fine-tuning gets what the other phases leave
    fresh: bool = False  # start over instead of going on with an interrupted demo
    collect: list[str] = field(default_factory=list)  # more settings for `vla collect`
    train: list[str] = field(default_factory=list)  # ... for `vla train`
    eval: list[str] = field(default_factory=list)  # ... for both `vla eval`
    deploy: list[str] = field(default_factory=list)  # ... for `vla deploy`

    def __post_init__(self) -> None:
        for name, least in (("demonstrations", 10), ("episodes", 1), ("robot_seconds", 1.0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}; got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One verb with its settings; the name is its folder under `work`."""

    name: str
    title: str
    verb: str
    overrides: Sequence[str]

    @property
    def command(self) -> str:
        """What a person would type."""
        return shlex.join(["vla", self.verb, *self.overrides])


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A phase that is done: its command, its summary and how long it took."""

    command: str
    summary: dict[str, Any]
    seconds: float


def run(cfg: DemoConfig, directory: Path) -> dict[str, Any]:
    """Runs what is left of the demo, writes report.html and returns the summary."""
    from vla.cli import demo_report
    from vla.cli.build import find_checkpoint

    find_checkpoint(cfg.checkpoint)  # before anything that takes minutes
    work = unfinished_work(cfg, directory.parent)
    finished: dict[str, Finished] = {}
    for make_phase in (_collect, _before, train_phase, _after, _deploy):
        phase = make_phase(cfg, work, finished)
        finished[phase.name] = _run_phase(phase, work / phase.name, len(finished) + 1)
    final = directory / "work"
    work.rename(final)
    summary, page = demo_report.build(cfg, final, finished)
    report = directory / "report.html"
    _write_report(report, page)
    print(f"\n{page.verdict}\nreport: {report}")
    return {**summary, "report": report, "checkpoint": final / CHECKPOINT}


def _collect(cfg: DemoConfig, work: Path, _: dict[str, Finished]) -> Phase:
    overrides = [
        f"env={cfg.task}",
        f"episodes={cfg.demonstrations}",
        f"root={_value(work / 'dataset')}",
    ]
    title = f"collect {cfg.demonstrations} demonstrations of {cfg.task}"
    return Phase(name="collect", title=title, verb="collect", overrides=[*overrides, *cfg.collect])


def _before(cfg: DemoConfig, work: Path, _: dict[str, Finished]) -> Phase:
    return _evaluation(cfg, "before", cfg.checkpoint)


def _after(cfg: DemoConfig, work: Path, _: dict[str, Finished]) -> Phase:
    return _evaluation(cfg, "after", str(work / CHECKPOINT))


def _evaluation(cfg: DemoConfig, name: str, policy: str) -> Phase:
    overrides = [
        f"policy={policy}",
        f"env={cfg.task}",
        f"episodes={cfg.episodes}",
        f"seed={cfg.seed}",
    ]
    title = f"evaluate {name} fine-tuning on {cfg.episodes} unseen scenes"
    return Phase(name=name, title=title, verb="eval", overrides=[*overrides, *cfg.eval])


def train_phase(cfg: DemoConfig, work: Path, finished: dict[str, Finished]) -> Phase:
    """Fine-tunes for what the budget leaves once the evaluation after it and the drive are paid for."""
    spent = sum(phase.seconds for phase in finished.values())
    reserved = finished["before"].seconds + cfg.robot_seconds + MARGIN_S
    seconds = max(cfg.budget_seconds - spent - reserved, SHORTEST_TRAINING_S)
    overrides = [
        f"init_from={cfg.checkpoint}",
        f"data.roots=[{_value(work / 'dataset')}]",
        f"training.max_seconds={seconds:.0f}",
    ]
    if (work / CHECKPOINT).exists():  # it was interrupted
        overrides.append("resume=true")
    title = f"fine-tune for at most {seconds:.0f} s"
    return Phase(name="train", title=title, verb="train", overrides=[*overrides, *cfg.train])


def _deploy(cfg: DemoConfig, work: Path, _: dict[str, Finished]) -> Phase:
    overrides = [
        "robot=sim",
        f"policy={work / CHECKPOINT}",
        f"seconds={cfg.robot_seconds:g}",
    ]
    title = f"drive the arm in real time for {cfg.robot_seconds:g} s"
    return Phase(
        name="deploy",
        title=title,
        verb="deploy",
        overrides=[*overrides, f"env={cfg.task}", *cfg.deploy],
    )


def _run_phase(phase: Phase, directory: Path, number: int) -> Finished:
    """Returns the phase's result, from its folder when it is done, else by running it there."""
    from vla.cli import config, convert, run_directory
    from vla.cli.verbs import VERBS

    path = directory / SUMMARY
    _print_heading(number, phase.title, is_done=path.exists())
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Finished(command=stored["command"], summary=stored, seconds=stored["seconds"])
    verb = VERBS[phase.verb]
    run_verb: Callable[[Any, Path], dict[str, Any]] = importlib.import_module(verb.module).run
    config_class = typing.get_type_hints(run_verb)["cfg"]
    cfg = config.compose(verb.config_name, config_class, phase.overrides)
    directory.mkdir(parents=True, exist_ok=True)
    run_directory.write_json(directory / "config.json", convert.to_plain(cfg))
    logger.info("%s", phase.command)
    began = time.monotonic()
    summary = run_verb(cfg, directory)
    seconds = time.monotonic() - began
    if summary.get("exit_code"):
        reason = summary.get("error") or summary.get("status")
        raise VlaError(f"{phase.command} failed ({reason}); look into {directory}, then try again")
    run_directory.write_json(path, {**summary, "command": phase.command, "seconds": seconds})
    return Finished(command=phase.command, summary=json.loads(path.read_text()), seconds=seconds)


def unfinished_work(cfg: DemoConfig, parent: Path) -> Path:
    """Returns the folder of a demo of these settings that was interrupted, or a new one."""
    from vla.cli import convert, run_directory
    from vla.cli.main import version

    work = parent / "unfinished"
    settings = {key: value for key, value in convert.to_plain(cfg).items() if key != "fresh"}
    settings = {"version": version(), **settings}
    path = work / "settings.json"
    if cfg.fresh or not path.exists() or json.loads(path.read_text(encoding="utf-8")) != settings:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        run_directory.write_json(path, settings)
    return work


def _write_report(path: Path, page: Any) -> None:
    from vla.cli import run_directory
    from vla.evaluation.html import render

    run_directory.write_text(path, render(page))


def _print_heading(number: int, title: str, *, is_done: bool) -> None:
    from rich import get_console

    state = " [dim](done before)[/dim]" if is_done else ""
    get_console().rule(f"[bold]{number} of 5[/bold]  {title}{state}", align="left")


def _value(path: Path) -> str:
    """Returns a path as an override's value: in quotes where it holds what Hydra's grammar would take apart."""
    text = str(path)
    if re.fullmatch(r"[\w./-]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
