"""Episodes spread over processes, each with its own environment and policy; who runs a seed does not change its outcome."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vla.errors import VlaError
from vla.evaluation.rollout import Env, Episode, RolloutConfig, run_episode
from vla.evaluation.video import FrameRecorder
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
        frames_directory: where workers leave the frames of recorded episodes.
        num_recorded: episodes, from the first seed on, whose frames are kept.
    """

    make_env: Callable[[], Env]
    make_policy: Callable[[Env], Policy]
    config: RolloutConfig
    execute_steps: int = 0
    frames_directory: Path | None = None
    num_recorded: int = 0


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
    count = min(_num_cores() if num_workers is None else num_workers, job.config.episodes)
    episodes: list[Episode] = []
    for episode in _here(job) if count == 0 else _in_processes(job, count):
        episodes.append(episode)
        if on_episode is not None:
            on_episode(episode)
    return sorted(episodes, key=lambda episode: episode.seed)


def _here(job: Job) -> Iterator[Episode]:
    with _one_torch_thread():
        worker = _Worker(job)
        for seed in job.config.seeds:
            yield worker.run(seed)


def _in_processes(job: Job, count: int) -> Iterator[Episode]:
    with _environment(SINGLE_THREAD):  # inherited by the processes, read when their libraries load
        ours_before = set(multiprocessing.active_children())
        executor = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(job,),
        )
        try:
            waiting = [executor.submit(_run_seed, seed) for seed in job.config.seeds]
            for future in as_completed(waiting):
                yield future.result()
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
    """An environment and a policy, built once and used for many seeds."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._env = job.make_env()
        self._policy = job.make_policy(self._env)

    def run(self, seed: int) -> Episode:
        job, recorder = self._job, None
        if job.frames_directory is not None and seed - job.config.seed < job.num_recorded:
            recorder = FrameRecorder(self._env)
        episode = run_episode(
            self._env,
            self._policy,
            job.config,
            seed,
            execute_steps=job.execute_steps,
            on_frame=recorder,
        )
        if recorder is not None and job.frames_directory is not None:
            recorder.save(job.frames_directory / f"{seed}.npy")
        return episode


_job: Job | None = None
_worker: _Worker | None = None


def _start_worker(job: Job) -> None:
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _job = job


def _run_seed(seed: int) -> Episode:
    global _worker
    if _worker is None:  # built here, not in the initializer, so that its errors reach the parent as they are
        assert _job is not None
        _worker = _Worker(_job)
        _set_torch_threads(1)
    return _worker.run(seed)


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
