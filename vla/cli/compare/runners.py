"""How a comparison runs its steps: each in a copy of one process that has imported everything, or all in this process.

A hundred steps of a minute each would otherwise import torch a hundred times, which takes as long as ten of them.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
import typing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from vla.cli.compare.steps import Ended, spend

logger = logging.getLogger(__name__)

OUTPUT = "output.txt"
# What steps import, as far as it opens no display: that does not survive a fork.
_SHARED = [
    "torch",
    "pyarrow.parquet",
    "tokenizers",
    "hydra",
    "vla.training.assemble",
    "vla.training.contrastive",
    "vla.training.multimodal",
    "vla.training.self_distillation",
    "vla.evaluation.answering",
    "vla.evaluation.pool",
]
# Threads that wait for each other burn the time that is being compared.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run_as_process(verb: str, settings: Sequence[str], folder: Path) -> Ended:
    """Runs `vla VERB ...` as a process of its own, its words in output.txt, and counts the time of all it started."""
    summary_file = folder / "summary.json"
    summary_file.unlink(missing_ok=True)
    arguments = [verb, *settings, f"run_directory={folder}"]
    context = _server()
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_be_the_step, args=(arguments, folder / OUTPUT, theirs))
    child.start()
    theirs.close()
    try:
        child.join()
    except KeyboardInterrupt:
        os.kill(child.pid or 0, signal.SIGINT)  # where the terminal has not told it already
        child.join()
        spend(folder, _cpu_seconds(ours))
        raise
    if child.exitcode and not summary_file.exists():
        summary = {"error": f"exit status {child.exitcode}, see {OUTPUT}", "exit_code": 1}
    else:
        summary = json.loads(summary_file.read_text(encoding="utf-8"))
    return Ended(summary=summary, cpu_seconds=_cpu_seconds(ours))


@functools.cache
def _server() -> ForkServerContext:
    """The process that the steps are copies of; it starts with the first of them and ends with this one."""
    os.environ.update(_ONE_THREAD)  # read when the libraries are loaded, there
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_SHARED)
    return context


def _cpu_seconds(pipe: Connection) -> float:
    """What the step said that it took; 0 where it was killed."""
    try:
        return float(pipe.recv())
    except EOFError:
        return 0.0


def _be_the_step(arguments: list[str], output: Path, pipe: Connection) -> None:
    """Does what a process started with these arguments would do."""
    from vla.processes import exit_with_parent

    exit_with_parent()
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    from vla.cli.main import main

    torch.set_num_threads(1)
    try:
        status = main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        pipe.send(sum(usage.ru_utime + usage.ru_stime for usage in usages))
    sys.exit(status)


def run_in_process(verb: str, settings: Sequence[str], folder: Path) -> Ended:
    """Runs a verb in this process: quick, since nothing is imported twice, and only good for trying the plumbing."""
    from vla.cli import config, convert, run_directory
    from vla.cli.verbs import VERBS

    begun = time.process_time()
    known = VERBS[verb]
    run: Callable[[Any, Path], dict[str, Any]] = importlib.import_module(known.module).run
    summary: dict[str, Any] = {"status": "failed"}
    try:
        cfg = config.compose(known.config_name, typing.get_type_hints(run)["cfg"], settings)
        run_directory.write_json(folder / "settings.json", convert.to_plain(cfg))
        summary = {"status": "ok", **run(cfg, folder)}
    except Exception as error:
        logger.exception("vla %s", verb)
        summary["error"] = f"{type(error).__name__}: {error}"
    path = folder / "summary.json"
    run_directory.write_json(path, summary)
    summary = json.loads(path.read_text(encoding="utf-8"))
    return Ended(summary=summary, cpu_seconds=time.process_time() - begun)
