"""Episodes spread over processes, each with its own environment and policy; outcomes do not depend on who runs them."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.errors import VlaError
from vla.evaluation.episode import Episode
from vla.evaluation.rollout import Env, RolloutConfig, run_episode, run_together
from vla.evaluation.video import FrameRecorder
from vla.processes import exit_with_parent
from vla.types import Policy

logger = logging.getLogger(__name__)

# One thread a process: the processes already fill the cores, and a sum split over threads rounds differently.
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a worker process needs; the factories must be importable, e.g. functools.partial of a function.

    Attributes:
        make_env: builds the environment.
        make_policy: builds the policy for that environment.
        config: what is asked of the policy.
        execute_steps: actions carried out of each chunk; 0 = all.
        batch_size: episodes that a process runs side by side, so that one forward pass serves them all. The groups
            are fixed by the seeds, so this too does not depend on the number of processes.
        frames_directory: where workers leave the frames of recorded episodes.
        num_recorded: episodes, from the first seed on, whose frames are kept.
    """

    make_env: Callable[[], Env]
    make_policy: Callable[[Any], Policy]
    config: RolloutConfig
    execute_steps: int = 0
    batch_size: int = 1
    frames_directory: Path | None = None
    num_recorded: int = 0

    def groups(self) -> list[range]:
        """Returns the seeds, those of a group being run side by side."""
        seeds, size = self.config.seeds, self.batch_size
        return [seeds[first : first + size] for first in range(0, len(seeds), size)]


def evaluate_each(
    jobs: Sequence[Job],
    *,
    num_workers: int | None = None,
    on_episode: Callable[[Job, Episode], None] | None = None,
) -> list[list[Episode]]:
    """Returns the outcomes of several jobs that differ in what is asked of one policy in one environment.

    Arguments, errors and order as `evaluate`; processes, environments and policies are made once for all jobs.
    """
    count = min(
        _num_cores() if num_workers is None else num_workers,
        sum(len(job.groups()) for job in jobs),
    )
    outcomes: list[list[Episode]] = [[] for _ in jobs]
    for number, episode in _here(jobs) if count == 0 else _in_processes(jobs, count):
        outcomes[number].append(episode)
        if on_episode is not None:
            on_episode(jobs[number], episode)
    return [sorted(episodes, key=lambda episode: episode.seed) for episodes in outcomes]


def evaluate(
    job: Job, *, num_workers: int | None = None, on_episode: Callable[[Episode], None] | None = None
) -> list[Episode]:
    """Returns the outcome of every seed, in the order of the seeds.

    Args:
        job: what to run.
        num_workers: processes; None = one per core, 0 = in this process.
        on_episode: called with each outcome as it comes, in no particular order.

    Raises:
        VlaError: policy and environment do not fit together, or a worker process died.
    """
    notify = None if on_episode is None else lambda _, episode: on_episode(episode)
    return evaluate_each([job], num_workers=num_workers, on_episode=notify)[0]


def _here(jobs: Sequence[Job]) -> Iterator[tuple[int, Episode]]:
    with _one_torch_thread():
        worker = _Worker(jobs[0])
        try:
            for number, job in enumerate(jobs):
                for seeds in job.groups():
                    yield from ((number, episode) for episode in worker.run(job, seeds))
        finally:
            worker.close()


def _in_processes(jobs: Sequence[Job], count: int) -> Iterator[tuple[int, Episode]]:
    with _environment(SINGLE_THREAD):  # inherited by the processes, read when their libraries load
        ours_before = set(multiprocessing.active_children())
        executor = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(jobs[0],),
        )
        try:
            waiting = {
                executor.submit(_run_seeds, job, seeds): number
                for number, job in enumerate(jobs)
                for seeds in job.groups()
            }
            for future in as_completed(waiting):
                yield from ((waiting[future], episode) for episode in future.result())
        except BrokenProcessPool as error:
            raise VlaError(
                f"one of {count} rollout processes died (out of memory?); use fewer: num_workers=1"
            ) from error
        except BaseException:  # Ctrl-C, or one seed's error: nobody waits for the other episodes
            executor.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - ours_before:
                process.terminate()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """Environments and a policy, built once and used for many seeds."""

    def __init__(self, job: Job) -> None:
        self._make_env = job.make_env
        self._envs = [job.make_env()]
        self._policy = job.make_policy(self._envs[0])

    def run(self, job: Job, seeds: range) -> list[Episode]:
        while len(self._envs) < len(seeds):
            self._envs.append(self._make_env())
        recorders = [
            _recorder(job, env, seed) for env, seed in zip(self._envs, seeds, strict=False)
        ]
        if job.batch_size == 1:
            episodes = [
                run_episode(
                    self._envs[0],
                    self._policy,
                    job.config,
                    seeds[0],
                    execute_steps=job.execute_steps,
                    on_frame=recorders[0],
                )
            ]
        else:
            episodes = run_together(
                self._envs[: len(seeds)],
                self._policy,
                job.config,
                seeds,
                execute_steps=job.execute_steps,
                on_frames=recorders,
            )
        for recorder, seed in zip(recorders, seeds, strict=True):
            if recorder is not None and job.frames_directory is not None:
                recorder.save(job.frames_directory / f"{seed}.npy")
        return episodes

    def close(self) -> None:
        """Frees the environments."""
        for env in self._envs:
            env.close()


def _recorder(job: Job, env: Env, seed: int) -> FrameRecorder | None:
    is_recorded = job.frames_directory is not None and seed - job.config.seed < job.num_recorded
    return FrameRecorder(env) if is_recorded else None


_job: Job | None = None
_worker: _Worker | None = None


def _start_worker(job: Job) -> None:
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    exit_with_parent()
    _job = job


def _run_seeds(job: Job, seeds: range) -> list[Episode]:
    global _worker
    if _worker is not None:
        return _worker.run(job, seeds)
    assert _job is not None
    _worker = _Worker(
        _job
    )  # built here, not in the initializer, so that its errors reach the parent as they are
    _set_torch_threads(1)
    try:
        return _worker.run(job, seeds)
    finally:  # registered after the first picture, so that it runs before the graphics library shuts down
        atexit.register(_worker.close)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_torch_threads(count: int) -> int:
    """Sets torch's thread count if torch is loaded at all; returns the previous one, or 0."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    return previous


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    previous = _set_torch_threads(1)
    try:
        yield
    finally:
        if previous:
            _set_torch_threads(previous)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
