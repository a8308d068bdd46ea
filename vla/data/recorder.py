"""Numbered attempts at demonstrations, spread over processes, until enough have succeeded.

An attempt's number decides everything about it, so a dataset does not depend on how many processes
recorded it, in which order they finished, or how often they were killed.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from vla.data.layout import DatasetLayout
from vla.data.record import Env, Expert, Perturb, record_attempt
from vla.data.staging import stage_episode, stage_rejection
from vla.errors import DatasetError, VlaError
from vla.processes import exit_with_parent

SINGLE_INSTRUCTION = (
    "single_instruction"  # the scene allows no further instruction: no fault of the expert
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a recording process needs; the functions must be importable (functools.partial of one is).

    Attributes:
        make_env: builds the environment.
        make_expert: builds the expert for that environment.
        make_perturb: builds, for every episode, what turns the expert's action into the executed one.
        count_instructions: how many different instructions the present scene allows.
        seed: of the first scene.
        instructions_per_scene: attempts at each scene, the first as drawn, the others with another object named.
    """

    make_env: Callable[[], Env]
    make_expert: Callable[[Env], Expert]
    make_perturb: Callable[[], Perturb]
    count_instructions: Callable[[Env], int]
    layout: DatasetLayout
    root: Path
    seed: int = 0
    instructions_per_scene: int = 1
    keep_failures: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one attempt; `failure` is "" when the dataset keeps the episode."""

    key: int
    num_frames: int = 0
    failure: str = ""


def record_episodes(
    job: Job,
    num_episodes: int,
    *,
    finished: set[int],
    rejected: dict[int, str],
    max_attempts: int,
    num_workers: int,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> None:
    """Leaves in the staging area of job.root what `finished` still lacks to hold `num_episodes` episodes.

    An attempt begins only while all those under way might succeed and it would still be needed. So
    the attempts made are 0..m without a gap and exactly `num_episodes` of them succeed, in whatever
    order processes finish.

    Args:
        finished: attempts that gave an episode, in earlier runs too.
        rejected: attempts that gave none, and why.
        num_workers: processes; 0 records in this one.

    Raises:
        DatasetError: too few of `max_attempts` attempts succeed, an attempt crashes or a process dies.
    """
    keys = (key for key in count() if key not in finished and key not in rejected)
    num_kept = len(finished)
    num_at_once = max(
        1, 2 * num_workers
    )  # one waits for each process, so that no process waits for us
    under_way: set[Future[Outcome]] = set()
    with _recording(job, num_workers) as submit:
        while num_kept < num_episodes:
            while num_kept + len(under_way) < num_episodes and len(under_way) < num_at_once:
                under_way.add(submit(_within(next(keys), max_attempts, num_kept)))
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for outcome in (future.result() for future in done):
                num_kept += not outcome.failure
                on_outcome(outcome)


class Recorder:
    """An environment and its expert, built once and used for many attempts."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._env = job.make_env()
        self._expert = job.make_expert(self._env)

    def record(self, key: int) -> Outcome:
        """Makes attempt `key` and leaves an episode, or a note why there is none, in the staging area."""
        scene, variant = divmod(key, self._job.instructions_per_scene)
        seed = self._job.seed + scene
        try:
            return self._record(key, seed, variant)
        except VlaError:
            raise
        except Exception as error:
            raise DatasetError(
                f"attempt {key} (seed {seed}, instruction {variant}) crashed with {type(error).__name__}: {error}; "
                "finished episodes are safe; see it with num_workers=0 --debug"
            ) from error

    def _record(self, key: int, seed: int, variant: int) -> Outcome:
        job = self._job
        if variant and not self._allows(seed, variant):
            stage_rejection(job.root, key, SINGLE_INSTRUCTION)
            return Outcome(key=key, failure=SINGLE_INSTRUCTION)
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
        return variant < self._job.count_instructions(self._env)


def _within(key: int, max_attempts: int, num_kept: int) -> int:
    if key >= max_attempts:
        raise DatasetError(
            f"only {num_kept} of {key} attempts gave an episode; weaken the perturbation or see why the expert fails; "
            "finished episodes are safe"
        )
    return key


@contextmanager
def _recording(job: Job, num_workers: int) -> Iterator[Callable[[int], Future[Outcome]]]:
    """Yields a function that starts an attempt, here or in another process."""
    if not num_workers:
        yield partial(_record_here, Recorder(job))
        return
    context = multiprocessing.get_context("spawn")  # a forked OpenGL context does not work
    pool = ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(job,))
    try:
        yield partial(pool.submit, _record_in_worker)
    except BrokenProcessPool:
        raise DatasetError(
            f"one of {num_workers} recording processes died (out of memory?); finished episodes are safe: "
            "run the same command again, with num_workers=1"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _record_here(recorder: Recorder, key: int) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(recorder.record(key))
    return future


_job: Job | None = None
_recorder: Recorder | None = None


def _start_worker(job: Job) -> None:
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    exit_with_parent()
    _job = job


def _record_in_worker(key: int) -> Outcome:
    global _recorder
    if (
        _recorder is None
    ):  # not in the initializer, whose errors do not reach the parent as they are
        assert _job is not None
        _recorder = Recorder(_job)
    return _recorder.record(key)
