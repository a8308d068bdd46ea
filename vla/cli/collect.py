"""`vla collect`: demonstrations of a scripted expert, as a LeRobot dataset. The same command again goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.config import EnvConfig
from envs.experts.perturbation import EnvNoise, Perturbation
from envs.labels.config import SceneLabelsConfig
from vla.data.layout import DatasetLayout, ImageStorage
from vla.errors import ConfigError
from vla.types import TABLETOP, FloatArray

if TYPE_CHECKING:
    from vla.data.record import Expert, Perturb
    from vla.data.recorder import Job, Outcome

logger = logging.getLogger(__name__)

FIRST_HELD_OUT_SEED = 1_000_000  # evaluation draws its scenes from here on
_MAX_ATTEMPTS_PER_EPISODE = 4


@dataclass(kw_only=True)
class CollectConfig:
    """Which demonstrations to record, or which labelled scenes to draw, and where."""

    env: EnvConfig = field(default_factory=EnvConfig)  # the simulated tabletop
    root: Path = Path(
        "datasets/demonstrations"
    )  # dataset folder; the same command again goes on in it
    episodes: int = 200  # demonstrations (labels: pictures or clips) the dataset shall hold; more later extends it
    seed: int = (
        0  # of the first scene, the next has seed + 1; all below 1000000, where evaluation begins
    )
    instructions_per_scene: int = (
        2  # show each scene under 1 or 2 different instructions, if it allows them
    )
    is_perturbed: bool = (
        True  # let noise move the arm while the expert labels: the data then show recoveries
    )
    perturbation: EnvNoise = field(default_factory=EnvNoise)  # that noise
    keep_failures: bool = False  # also keep episodes in which the expert did not succeed
    storage: ImageStorage = (
        ImageStorage.IMAGE
    )  # image: exact, fast; video: small for large pictures
    labels: bool = (
        False  # draw labelled scenes to look at and ask about, in place of demonstrations
    )
    scene_labels: SceneLabelsConfig = field(default_factory=SceneLabelsConfig)  # those scenes
    num_workers: int | None = None  # processes; null = one per core, 0 = none (for a debugger)

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes must be at least 1; got {self.episodes}")
        if self.instructions_per_scene not in (1, 2):
            raise ConfigError(
                f"instructions_per_scene must be 1 or 2; got {self.instructions_per_scene}"
            )
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(f"num_workers must be 0 or more, or null; got {self.num_workers}")
        if self.labels:
            self._check_scene_seeds()
            return
        if not self.env.cameras:
            raise ConfigError(
                "env.cameras is empty; demonstrations need pictures: env.cameras=[front,wrist]"
            )
        last = self.seed + self.max_attempts // self.instructions_per_scene
        if self.seed < 0 or last >= FIRST_HELD_OUT_SEED:
            raise ConfigError(
                f"seeds {self.seed}..{last} are not all within 0..{FIRST_HELD_OUT_SEED - 1}; those beyond belong to "
                "evaluation: choose a smaller seed or fewer episodes"
            )

    def _check_scene_seeds(self) -> None:
        last = self.seed + self.episodes - 1
        if self.seed < 0 or (self.seed < FIRST_HELD_OUT_SEED <= last):
            raise ConfigError(
                f"seeds {self.seed}..{last} are neither all training scenes (0..{FIRST_HELD_OUT_SEED - 1}) nor all "
                f"held out (from {FIRST_HELD_OUT_SEED}): choose another seed or fewer episodes"
            )

    @property
    def max_attempts(self) -> int:
        """Attempts after which collecting gives up."""
        return _MAX_ATTEMPTS_PER_EPISODE * self.episodes + 20

    @property
    def identity(self) -> dict[str, Any]:
        """What all episodes of one dataset have in common."""
        from vla.cli.convert import to_plain

        names = (
            "env",
            "seed",
            "instructions_per_scene",
            "is_perturbed",
            "perturbation",
            "keep_failures",
        )
        return {name: to_plain(getattr(self, name)) for name in names}


def run(cfg: CollectConfig, directory: Path) -> dict[str, Any]:
    """Collects until the dataset holds cfg.episodes episodes, and returns what it then holds."""
    num_workers = _num_cores() if cfg.num_workers is None else cfg.num_workers
    if cfg.labels:
        from vla.cli.collect_scenes import collect_scenes

        return collect_scenes(
            cfg.scene_labels,
            root=cfg.root,
            num_rows=cfg.episodes,
            seed=cfg.seed,
            randomization=cfg.env.randomization,
            num_workers=num_workers,
        )
    from vla.data.contact_sheet import write_contact_sheet
    from vla.data.recorder import record_episodes
    from vla.data.write import DatasetWriter

    job = build_job(cfg)
    with DatasetWriter(cfg.root, job.layout, cfg.identity) as writer:
        finished, rejected = writer.finished, writer.rejected
        if finished:
            logger.info("%s already holds %d finished episodes", cfg.root, len(finished))
        with _progress(cfg.episodes, len(finished)) as show:
            record_episodes(
                job,
                cfg.episodes,
                finished=finished,
                rejected=rejected,
                max_attempts=cfg.max_attempts,
                num_workers=num_workers,
                on_outcome=show,
            )
        num_episodes = writer.finalize()
        num_frames, failures = writer.manifest.num_frames, _tally(writer.rejected)
    sheet = cfg.root.with_name(f"{cfg.root.name}.png")
    write_contact_sheet(cfg.root, sheet)
    told = ", ".join(f"{number} {reason}" for reason, number in failures.items()) or "none"
    print(
        f"{cfg.root}: {num_episodes} episodes, {num_frames} frames; rejected: {told}; look at {sheet}"
    )
    return {
        "root": cfg.root,
        "episodes": num_episodes,
        "new_episodes": num_episodes - len(finished),
        "frames": num_frames,
        "rejected": failures,
        "contact_sheet": sheet,
    }


def build_job(cfg: CollectConfig) -> Job:
    """Returns the recording job that `cfg` describes."""
    from vla.cli import build
    from vla.data.recorder import Job

    embodiment = replace(TABLETOP, camera_names=tuple(cfg.env.cameras))
    return Job(
        make_env=partial(build.build_env, cfg.env),
        make_expert=_make_expert,
        make_perturb=partial(_make_perturb, cfg.perturbation if cfg.is_perturbed else None),
        count_instructions=_count_instructions,
        layout=DatasetLayout.for_embodiment(embodiment, cfg.env.image_size, storage=cfg.storage),
        root=cfg.root,
        seed=cfg.seed,
        instructions_per_scene=cfg.instructions_per_scene,
        keep_failures=cfg.keep_failures,
    )


def _make_expert(env: Any) -> Expert:
    from envs.experts import make_expert

    return make_expert(env)


def _make_perturb(noise: EnvNoise | None) -> Perturb:
    return _unperturbed if noise is None else Perturbation(noise).perturb


def _unperturbed(action: FloatArray, rng: object) -> FloatArray:
    return action


def _count_instructions(env: Any) -> int:
    scene = env.unwrapped
    return len({goal.target for goal in scene.task.goals(scene.scene)})


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(episodes: int, num_kept: int) -> Iterator[Callable[[Outcome], None]]:
    """Yields a function that shows an outcome: episodes, frames, rejections and remaining time."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )  # fmt: skip

    seen: dict[str, Any] = {"frames": 0, "rejected": 0}
    columns = (
        TextColumn("collecting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("eta"),
        TimeRemainingColumn(), TextColumn("{task.fields[frames]} frames, {task.fields[rejected]} rejected"),
    )  # fmt: skip
    with Progress(*columns) as bar:
        task = bar.add_task("collecting", total=episodes, completed=num_kept, **seen)

        def show(outcome: Outcome) -> None:
            seen["frames"] += outcome.num_frames
            seen["rejected"] += bool(
                _tally({outcome.key: outcome.failure} if outcome.failure else {})
            )
            bar.update(task, advance=not outcome.failure, **seen)

        yield show


def _tally(rejected: dict[int, str]) -> dict[str, int]:
    """Returns how often each kind of failure came; a scene without a second instruction is none."""
    from vla.data.recorder import SINGLE_INSTRUCTION

    reasons = [reason for reason in rejected.values() if reason != SINGLE_INSTRUCTION]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
