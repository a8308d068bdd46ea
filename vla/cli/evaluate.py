"""`vla eval`: how often a policy succeeds in simulation, how sure that figure is, and why the rest failed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from envs.config import EnvConfig
from policies.config import Ensemble, PolicyConfig, PolicyKind
from vla.cli import build
from vla.errors import ConfigError
from vla.evaluation.episode import Episode
from vla.evaluation.rollout import RolloutConfig

logger = logging.getLogger(__name__)

VIDEO_FPS = 10.0  # policy steps a second: real time


@dataclass(kw_only=True)
class EvalConfig(RolloutConfig):
    """One evaluation: a policy, an environment and a row of seeds."""

    env: EnvConfig = field(default_factory=EnvConfig)  # the simulated tabletop
    policy: PolicyConfig = field(default_factory=PolicyConfig)  # who acts
    num_workers: int | None = None  # processes; null = one per core, 0 = none (for a debugger)
    batch_size: int = (
        1  # episodes a process runs side by side, one forward pass for all; pays off on a GPU
    )
    save_video: bool = True  # write episodes.mp4
    video_episodes: int = 16  # episodes in it, from the first seed on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(f"num_workers must be 0 or more, or null; got {self.num_workers}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1; got {self.batch_size}")
        if self.batch_size > 1 and (
            self.policy.ensemble is not Ensemble.NONE or self.policy.temperature > 0
        ):
            raise ConfigError(
                "batch_size > 1 runs episodes side by side with one policy, which then can remember nothing of each; "
                "use policy.ensemble=none and policy.temperature=0, or batch_size=1"
            )
        if self.video_episodes < 1:
            raise ConfigError(
                f"video_episodes must be at least 1; got {self.video_episodes}; "
                "use save_video=false for no video"
            )


def run(cfg: EvalConfig, directory: Path) -> dict[str, Any]:
    """Evaluates, prints the table and returns the summary; exceptions make the exit status 1."""
    from vla.cli.convert import to_plain
    from vla.evaluation.report import summarize, table

    cfg = _with_checkpoint(cfg)
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

    policy = cfg.policy
    frames_directory = directory / ".frames"
    job = pool.Job(
        make_env=partial(build.build_env, cfg.env),
        make_policy=partial(build.build_policy, policy),
        config=cfg,
        execute_steps=_steps_of_a_chunk(policy),
        batch_size=cfg.batch_size,
        frames_directory=frames_directory if cfg.save_video else None,
        num_recorded=cfg.video_episodes,
    )
    try:
        with _progress(cfg.episodes) as show, _episode_log(directory) as write:

            def on_episode(episode: Episode) -> None:
                write(episode)
                show(episode)

            episodes = pool.evaluate(job, num_workers=cfg.num_workers, on_episode=on_episode)
        _write_jsonl(directory / "episodes.jsonl", episodes)
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


def _steps_of_a_chunk(policy: PolicyConfig) -> int:
    """Returns how many actions of a chunk are carried out before the next is asked for; 0 = all."""
    asks_every_step = policy.ensemble is Ensemble.ACT or policy.execute_steps is None
    return 1 if asks_every_step else policy.execute_steps or 0


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Episode], None]]:
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


def _write_jsonl(path: Path, episodes: Sequence[Episode]) -> None:
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
