"""`vla eval`: how often a policy succeeds in simulation, how sure that figure is, and why the rest failed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.config import EnvConfig
from policies.config import PolicyConfig, PolicyKind
from vla.cli import build
from vla.control.schedule import Schedule
from vla.errors import ConfigError
from vla.evaluation.episode import Episode
from vla.evaluation.rollout import RolloutConfig, ScenesConfig

if TYPE_CHECKING:
    from vla.evaluation.pool import Job

logger = logging.getLogger(__name__)

VIDEO_FPS = 10.0  # policy steps a second: real time


@dataclass(kw_only=True)
class EvalConfig(ScenesConfig):
    """One evaluation: a policy, an environment and a row of seeds; or one for every scheduler at every latency."""

    env: EnvConfig = field(default_factory=EnvConfig)  # the simulated tabletop
    policy: PolicyConfig = field(default_factory=PolicyConfig)  # who acts
    # from an observation to its chunk, on the simulated clock; several are compared on the same scenes
    latency_ms: list[float] = field(default_factory=lambda: [0.0])
    # how chunks are carried out; several are compared, all at every latency
    scheduler: list[Schedule] = field(default_factory=lambda: [Schedule.SYNCHRONOUS])
    beside: list[Path] = field(
        default_factory=list
    )  # folders of earlier comparisons, for one report
    num_workers: int | None = None  # processes; null = one per core, 0 = none (for a debugger)
    batch_size: int = (
        1  # episodes a process runs side by side, one forward pass for all; pays off on a GPU
    )
    save_video: bool = True  # write episodes.mp4; not of a comparison
    video_episodes: int = 16  # episodes in it, from the first seed on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(f"num_workers must be 0 or more, or null; got {self.num_workers}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1; got {self.batch_size}")
        if self.batch_size > 1 and self.policy.temperature > 0:
            raise ConfigError(
                "batch_size > 1 runs episodes side by side with one policy, which then can remember nothing of each; "
                "use policy.temperature=0, or batch_size=1"
            )
        for name in ("latency_ms", "scheduler"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(
                    f"{name} must be one value or several different ones; got {values}"
                )
        self.rollouts()
        if self.video_episodes < 1:
            raise ConfigError(
                f"video_episodes must be at least 1; got {self.video_episodes}; "
                "use save_video=false for no video"
            )

    def rollouts(self) -> list[RolloutConfig]:
        """Returns what is asked in each case: every scheduler at every latency."""
        scenes = {known.name: getattr(self, known.name) for known in fields(ScenesConfig)}
        return [
            RolloutConfig(**scenes, scheduler=scheduler, latency_ms=latency_ms)
            for scheduler in self.scheduler
            for latency_ms in self.latency_ms
        ]


def run(cfg: EvalConfig, directory: Path) -> dict[str, Any]:
    """Evaluates, prints the table and returns the summary; exceptions make the exit status 1."""
    from vla.cli.convert import to_plain
    from vla.evaluation.report import summarize, table

    cfg = _with_checkpoint(cfg)
    if len(cfg.rollouts()) > 1 or cfg.beside:
        from vla.cli import evaluate_sweep

        return evaluate_sweep.run(cfg, directory)
    episodes = evaluate(cfg, directory)
    summary = summarize(episodes)
    print(table(summary))
    for entry in summary["exceptions"]:
        logger.error("seed %(seed)d crashed, not scored: %(error)s (%(file)s)", entry)
    if summary["exceptions"]:
        summary["exit_code"] = 1
        summary["status"] = "exceptions"
    return {**summary, "policy": to_plain(cfg.policy), "env": to_plain(cfg.env)}


def evaluate(cfg: EvalConfig, directory: Path) -> list[Episode]:
    """Returns the outcome of every seed; leaves episodes.jsonl, exceptions/ and episodes.mp4 in `directory`."""
    from vla.evaluation import pool

    frames_directory = directory / ".frames"
    job = replace(
        make_job(cfg, cfg.rollouts()[0]),
        frames_directory=frames_directory if cfg.save_video else None,
        num_recorded=cfg.video_episodes,
    )
    try:
        with progress(cfg.episodes) as show, _episode_log(directory) as write:

            def on_episode(episode: Episode) -> None:
                write(episode)
                show(episode)

            episodes = pool.evaluate(job, num_workers=cfg.num_workers, on_episode=on_episode)
        write_jsonl(directory / "episodes.jsonl", episodes)
        if cfg.save_video:
            _write_video(directory / "episodes.mp4", frames_directory, episodes)
    finally:
        shutil.rmtree(frames_directory, ignore_errors=True)
    return episodes


def _with_checkpoint(cfg: EvalConfig) -> EvalConfig:
    """Returns `cfg` with the checkpoint's own directory; a wrong or damaged one is refused before processes start."""
    if cfg.policy.kind is not PolicyKind.CHECKPOINT:
        return cfg
    directory = build.find_checkpoint(cfg.policy.path)
    from vla.checkpoints import native

    size = native.read_config(directory)["image_size"]
    if size != cfg.env.image_size:
        logger.warning(
            "pictures of %d px are resized to the %d px the policy was trained with; env.image_size=%d renders them so",
            cfg.env.image_size,
            size,
            size,
        )
    return replace(cfg, policy=replace(cfg.policy, path=str(directory)))


def make_job(cfg: EvalConfig, rollout: RolloutConfig) -> Job:
    """Returns the job of one case, without a video."""
    from vla.evaluation import pool

    return pool.Job(
        make_env=partial(build.build_env, cfg.env),
        make_policy=partial(build.build_policy, cfg.policy),
        config=rollout,
        execute_steps=_steps_of_a_chunk(cfg.policy, rollout.scheduler),
        batch_size=cfg.batch_size,
    )


def _steps_of_a_chunk(policy: PolicyConfig, scheduler: Schedule) -> int:
    """Returns how many actions of a chunk may be carried out; 0 = all.

    Unless told otherwise a loop that waits for its policy looks again after every action; the others use what they have
    until something newer comes.
    """
    if policy.execute_steps is None:
        return 1 if scheduler is Schedule.SYNCHRONOUS else 0
    return policy.execute_steps


@contextmanager
def progress(total: int) -> Iterator[Callable[[Episode], None]]:
    """Yields a function that moves a bar with the running success rate and its interval."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from vla.evaluation.report import percent, rate_of

    known: list[Episode] = []
    columns = (
        TextColumn("episodes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=total, rate="")

        def show(episode: Episode) -> None:
            known.append(episode)
            rate = rate_of(known)
            text = f"success {percent(rate.success_rate)} ({100 * rate.low:.0f} to {100 * rate.high:.0f})"
            progress.update(task, advance=1, rate=text)

        yield show


@contextmanager
def _episode_log(directory: Path) -> Iterator[Callable[[Episode], None]]:
    """Yields a function that appends an outcome to episodes.jsonl at once, so that an interrupted run keeps its own."""
    with (directory / "episodes.jsonl").open("w", encoding="utf-8") as file:

        def write(episode: Episode) -> None:
            file.write(json.dumps(episode.to_dict()) + "\n")
            file.flush()
            if episode.traceback:
                path = directory / "exceptions" / f"{episode.seed}.txt"
                path.parent.mkdir(exist_ok=True)
                path.write_text(episode.traceback, encoding="utf-8")

        yield write


def write_jsonl(path: Path, episodes: Sequence[Episode]) -> None:
    """Writes the outcomes again, now in the order of their seeds."""
    from vla.data.atomic import replacing

    with replacing(path) as temporary:
        lines = [json.dumps(episode.to_dict()) + "\n" for episode in episodes]
        temporary.write_text("".join(lines), encoding="utf-8")


def _write_video(path: Path, frames_directory: Path, episodes: Sequence[Episode]) -> None:
    from vla.evaluation.video import write_grid

    frames = {int(file.stem): file for file in frames_directory.glob("*.npy")}
    if write_grid(path, frames, episodes, fps=VIDEO_FPS):
        logger.info("video: %s", path)
