"""`vla collect`: demonstrations of a scripted expert, as a LeRobot dataset.

Attempts are numbered. Number and settings decide everything about an attempt, so the dataset is the same however many
processes record it and however often they are killed, and the same command again goes on where it stopped.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.config import EnvConfig
from envs.experts.perturbation import EnvNoise
from vla.data.layout import DatasetLayout, ImageStorage
from vla.errors import ConfigError, DatasetError
from vla.types import TABLETOP

if TYPE_CHECKING:
    from vla.data.record import Env, Expert, Perturb

logger = logging.getLogger(__name__)

FIRST_HELD_OUT_SEED = 1_000_000  # evaluation draws its scenes from here on
_SINGLE_INSTRUCTION = "single_instruction"
_MAX_ATTEMPTS_PER_EPISODE = 4


@dataclass(kw_only=True)
class CollectConfig:
    """Which demonstrations to record, and where."""

    env: EnvConfig = field(default_factory=EnvConfig)  # the simulated tabletop
    root: Path = Path("datasets/demonstrations")  # dataset folder; the same command again goes on in it
    episodes: int = 200  # demonstrations the dataset shall hold; a larger number later extends it
    seed: int = 0  # of the first scene, the next has seed + 1; all below 1000000, which evaluation starts from
    instructions_per_scene: int = 2  # show each scene under this many different instructions, if it allows them
    is_perturbed: bool = True  # let noise move the arm while the expert labels: the data then show recoveries
    perturbation: EnvNoise = field(default_factory=EnvNoise)  # that noise
    keep_failures: bool = False  # also keep episodes in which the expert did not succeed
    storage: ImageStorage = ImageStorage.IMAGE  # image: exact, fast; video: small for large pictures
    num_workers: int | None = None  # processes; null = one per core, 0 = none (for a debugger)

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.instructions_per_scene < 1:
            raise ConfigError(
                f"episodes ({self.episodes}) and instructions_per_scene ({self.instructions_per_scene}) must be at least 1"
            )
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(f"num_workers must be 0 or more, or null; got {self.num_workers}")
        if not self.env.cameras:
            raise ConfigError("env.cameras is empty; demonstrations need pictures: env.cameras=[front,wrist]")
        last = self.seed + self.max_attempts // self.instructions_per_scene
        if self.seed < 0 or last >= FIRST_HELD_OUT_SEED:
            raise ConfigError(
                f"seeds {self.seed}..{last} reach beyond 0..{FIRST_HELD_OUT_SEED - 1}; evaluation uses the rest: "
                "choose a smaller seed or fewer episodes"
            )

    @property
    def max_attempts(self) -> int:
        """Attempts after which collecting gives up."""
        return _MAX_ATTEMPTS_PER_EPISODE * self.episodes + 20

    @property
    def identity(self) -> dict[str, Any]:
        """What every episode of one dataset has in common."""
        from vla.cli.convert import to_plain

        names = ("env", "seed", "instructions_per_scene", "is_perturbed", "perturbation", "keep_failures")
        return {name: to_plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a recording process needs; the factories must be importable."""

    make_env: Callable[[], Env]
    make_expert: Callable[[Env], Expert]
    make_perturb: Callable[[], Perturb]
    layout: DatasetLayout
    root: Path
    seed: int
    instructions_per_scene: int
    keep_failures: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one attempt; `failure` is "" when the dataset keeps the episode."""

    key: int
    num_frames: int = 0
    failure: str = ""


def run(cfg: CollectConfig, directory: Path) -> dict[str, Any]:
    """Collects until the dataset holds cfg.episodes episodes, and returns what it then holds."""
    from vla.data.contact_sheet import write_contact_sheet
    from vla.data.write import DatasetWriter

    job = build_job(cfg)
    with DatasetWriter(cfg.root, job.layout, cfg.identity) as writer:
        held = len(writer.finished)
        if held:
            logger.info("%s already holds %d finished episodes", cfg.root, held)
        collect(job, writer.finished, writer.rejected, cfg)
        rejected = writer.rejected
        num_episodes = writer.finalize()
        num_frames = writer.manifest.num_frames
    sheet = cfg.root.with_name(cfg.root.name + ".png")
    write_contact_sheet(cfg.root, sheet)
    failures = _tally(rejected)
    print(f"{cfg.root}: {num_episodes} episodes, {num_frames} frames; rejected: {_told(failures)}; look at {sheet}")
    return {
        "root": cfg.root, "episodes": num_episodes, "frames": num_frames, "new_episodes": num_episodes - held,
        "rejected": failures, "contact_sheet": sheet,
    }  # fmt: skip


def build_job(cfg: CollectConfig) -> Job:
    """Returns the recording job that `cfg` describes."""
    from vla.cli import build

    embodiment = replace(TABLETOP, camera_names=tuple(cfg.env.cameras))
    return Job(
        make_env=partial(build.build_env, cfg.env),
        make_expert=_make_expert,
        make_perturb=partial(_make_perturb, cfg.perturbation if cfg.is_perturbed else None),
        layout=DatasetLayout.for_embodiment(embodiment, cfg.env.image_size, storage=cfg.storage),
        root=cfg.root,
        seed=cfg.seed,
        instructions_per_scene=cfg.instructions_per_scene,
        keep_failures=cfg.keep_failures,
    )


def collect(job: Job, finished: set[int], rejected: dict[int, str], cfg: CollectConfig) -> None:
    """Records, each in its own staging directory, the first cfg.episodes successful attempts that are still missing.

    An attempt is only begun when all those under way could succeed and it would still be needed: the attempts made are
    then 0..m with exactly cfg.episodes successes, whatever the order in which processes finish.

    Raises:
        DatasetError: the expert fails so often that four attempts an episode do not suffice.
    """
    num_kept = len(finished)
    keys = (key for key in count() if key not in finished and key not in rejected)
    with _progress(cfg.episodes, num_kept) as show, _recorders(job, cfg) as submit:
        under_way: set[Future[Outcome]] = set()
        while True:
            while num_kept + len(under_way) < cfg.episodes and len(under_way) < _num_at_once(cfg):
                under_way.add(submit(_next_key(keys, cfg, num_kept)))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for outcome in (future.result() for future in done):
                num_kept += not outcome.failure
                show(outcome)


def _next_key(keys: Iterator[int], cfg: CollectConfig, num_kept: int) -> int:
    key = next(keys)
    if key >= cfg.max_attempts:
        raise DatasetError(
            f"only {num_kept} of {key} attempts at {cfg.env.task} gave an episode; weaken the perturbation "
            "(is_perturbed=false) or see why the expert fails; what is finished stays in the dataset folder"
        )
    return key


class Recorder:
    """An environment and its expert, built once and used for many attempts."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._env = job.make_env()
        self._expert = job.make_expert(self._env)

    def record(self, key: int) -> Outcome:
        """Records attempt `key` and leaves an episode, or a note why there is none, in the staging directory."""
        from vla.data.record import record_attempt
        from vla.data.staging import stage_episode, stage_rejection

        job = self._job
        scene, variant = divmod(key, job.instructions_per_scene)
        seed = job.seed + scene
        if variant and not self._allows(seed, variant):
            stage_rejection(job.root, key, _SINGLE_INSTRUCTION)
            return Outcome(key=key, failure=_SINGLE_INSTRUCTION)
        attempt = record_attempt(
            self._env,
            self._expert,
            job.make_perturb(),
            seed=seed,
            options={"swap_instruction": variant} if variant else {},
            record={"scene": seed, "instruction": variant},
        )
        if not attempt.is_success and not job.keep_failures:
            stage_rejection(job.root, key, attempt.failure or "timeout")
            return Outcome(key=key, failure=attempt.failure or "timeout")
        stage_episode(job.root, job.layout, key, attempt.episode)
        return Outcome(key=key, num_frames=attempt.episode.num_frames)

    def _allows(self, seed: int, variant: int) -> bool:
        self._env.reset(seed=seed)
        env = self._env.unwrapped
        return variant < len({goal.target for goal in env.task.goals(env.scene)})


Submit = Callable[[int], "Future[Outcome]"]


class _recorders:  # noqa: N801  (used as a function)
    """Context that gives a function to start attempts, in this process or in others."""

    def __init__(self, job: Job, cfg: CollectConfig) -> None:
        self._job, self._num_workers = job, _num_workers(cfg)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Submit:
        if not self._num_workers:
            return partial(_run_here, Recorder(self._job))
        self._pool = ProcessPoolExecutor(
            self._num_workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._job,),
        )
        return partial(self._pool.submit, _record_in_worker)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if kind is BrokenProcessPool:
            raise DatasetError(
                f"one of {self._num_workers} recording processes died (out of memory?); finished episodes are safe: "
                "run the same command again, with num_workers=1"
            ) from None


_recorder: Recorder | None = None
_worker_job: Job | None = None


def _start_worker(job: Job) -> None:
    global _worker_job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker_job = job


def _record_in_worker(key: int) -> Outcome:
    global _recorder
    if _recorder is None:  # not in the initializer, whose errors do not reach the parent as they are
        assert _worker_job is not None
        _recorder = Recorder(_worker_job)
    return _recorder.record(key)


def _exit_with_parent() -> None:
    """Ends this process when its parent is gone, however it went: a pool's workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_here(recorder: Recorder, key: int) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(recorder.record(key))
    return future


def _num_workers(cfg: CollectConfig) -> int:
    return len(os.sched_getaffinity(0)) if cfg.num_workers is None else cfg.num_workers


def _num_at_once(cfg: CollectConfig) -> int:
    return max(1, 2 * _num_workers(cfg))  # one more waits for each process, so that none waits for us


def _make_expert(env: Any) -> Expert:
    from envs.experts import make_expert

    return make_expert(env)


def _make_perturb(noise: EnvNoise | None) -> Perturb:
    from envs.experts.perturbation import Perturbation

    return Perturbation(noise).perturb if noise else _unperturbed


def _unperturbed(action: Any, rng: Any) -> Any:
    return action


class _progress:  # noqa: N801  (used as a function)
    """Shows episodes, frames, rejections and remaining time."""

    def __init__(self, episodes: int, num_kept: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("collecting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("eta"),
            TimeRemainingColumn(), TextColumn("{task.fields[frames]} frames, {task.fields[rejected]} rejected"),
        )  # fmt: skip
        self._frames = self._rejected = 0
        self._task = self._bar.add_task("collecting", total=episodes, completed=num_kept, frames=0, rejected=0)

    def __enter__(self) -> Callable[[Outcome], None]:
        self._bar.start()
        return self._show

    def _show(self, outcome: Outcome) -> None:
        self._frames += outcome.num_frames
        self._rejected += outcome.failure not in ("", _SINGLE_INSTRUCTION)
        self._bar.update(
            self._task, advance=not outcome.failure, frames=self._frames, rejected=self._rejected
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _tally(rejected: dict[int, str]) -> dict[str, int]:
    reasons = [reason for reason in rejected.values() if reason != _SINGLE_INSTRUCTION]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _told(failures: dict[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in failures.items()) or "none"
