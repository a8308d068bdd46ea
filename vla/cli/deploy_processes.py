"""The supervisor of a drive: starts the control and the policy process, watches both, and always cleans up."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vla.cli.deploy import DeployConfig
from vla.cli.deploy_workers import Ended, build_links, control_main, policy_main
from vla.control.board import Board, Word
from vla.control.messages import Links, SharedLinks
from vla.errors import RobotError, VlaError

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_LINGER_S = 1.0  # how long a drive goes on holding after the policy process has died, so that the log shows it
_LONGEST_END_S = 15.0  # for the control process to stop and write its log
_LONGEST_FILM_S = 300.0
_LONGEST_SILENCE_S = 5.0  # without a new tick, when the loop should be running


class _Child:
    """One process of the drive and what it has said so far."""

    def __init__(
        self, target: Any, cfg: DeployConfig, shared: SharedLinks, directory: Path
    ) -> None:
        context = multiprocessing.get_context(
            "spawn"
        )  # a fork would copy GL contexts and torch's threads
        self._pipe: Connection
        self._pipe, other = context.Pipe(duplex=False)
        self.name = target.__name__.removesuffix("_main")
        arguments = (cfg, shared, other, directory)
        self.process = context.Process(target=target, args=arguments, name=self.name, daemon=True)
        self.process.start()
        other.close()
        self.facts: dict[str, Any] = {}
        self.granted: str | None = None
        self.refusal: VlaError | None = None
        self.crash = ""

    @property
    def has_ended(self) -> bool:
        return self.process.exitcode is not None

    @property
    def has_failed(self) -> bool:
        return self.has_ended and self.process.exitcode != 0

    def listen(self) -> None:
        """Takes what has arrived on the pipe; never waits."""
        try:
            while self._pipe.poll():
                match self._pipe.recv():
                    case ("granted", warning):
                        self.granted = warning
                    case ("facts", facts):
                        self.facts = facts
                    case ("refused", error):
                        self.refusal = error
                    case ("crashed", line, trace):
                        self.crash = line
                        logger.debug("the %s process crashed:\\n%s", self.name, trace)
                        logging.getLogger("traceback").info("%s", trace)
                    case message:
                        raise RobotError(f"the {self.name} process sent {message!r}")
        except EOFError:
            return

    def why(self) -> str:
        """Returns why the process ended early, one line."""
        code = self.process.exitcode
        if self.crash or self.refusal:
            reason = self.crash or str(self.refusal)
        elif code is not None and code < 0:
            reason = f"signal {signal.Signals(-code).name}"
        else:
            reason = f"exit status {code}"
        return f"the {self.name} process ended: {reason}"

    def finish(self, seconds: float) -> None:
        """Waits for the process to end by itself, then makes it."""
        deadline = time.monotonic() + seconds
        while not self.has_ended and time.monotonic() < deadline:
            self.listen()
            self.process.join(_POLL_S)
        self.listen()
        if not self.has_ended:
            logger.warning(
                "the %s process did not end within %.0f s and is stopped", self.name, seconds
            )
            self.process.kill()
            self.process.join()


def drive(cfg: DeployConfig, directory: Path) -> Ended:
    """Drives on the wall clock and returns how it ended; raises what a process refused before the arm could move."""
    shared = build_links(cfg)
    try:
        with _terminable(), _emergency_stop_by_signal(shared.links.board):
            with _deaf_to_interrupts(), _single_threaded_linear_algebra():
                control = _Child(control_main, cfg, shared, directory)
                policy = _Child(policy_main, cfg, shared, directory)
            return _supervise(cfg, shared.links, control, policy)
    finally:
        shared.unlink()


def _supervise(cfg: DeployConfig, links: Links, control: _Child, policy: _Child) -> Ended:
    ended = Ended()
    links.board[Word.POLICY_ALIVE] = 1
    try:
        _await_start(cfg, links, control, policy)
        ended.error = _watch(links, control, policy)
    except KeyboardInterrupt:
        ended.is_interrupted = True
    finally:
        links.board[Word.STOP] = 1
        control.finish(_LONGEST_END_S)
        policy.finish(
            _LONGEST_FILM_S if cfg.save_video and not ended.is_interrupted else _LONGEST_END_S
        )
    if control.has_failed or not control.facts:
        if ended.is_interrupted:
            raise KeyboardInterrupt
        raise control.refusal or RobotError(control.why())
    ended.control, ended.policy = control.facts, policy.facts
    ended.stall_began_s = links.board[Word.STALL_BEGAN]
    return ended


def _await_start(cfg: DeployConfig, links: Links, control: _Child, policy: _Child) -> None:
    """Waits until the loop runs; raises when one of the two cannot start."""
    logger.info("loading the policy ...")
    deadline = time.monotonic() + cfg.start_timeout_s
    while control.granted is None:
        for child in (control, policy):
            child.listen()
            if child.has_ended and control.granted is None:
                child.listen()
                raise child.refusal or RobotError(child.why())
        if time.monotonic() > deadline:
            raise RobotError(
                f"the policy was not ready within {cfg.start_timeout_s:.0f} s; give start_timeout_s=SECONDS"
            )
        time.sleep(_POLL_S)
    if control.granted:
        logger.warning("%s", control.granted)
    logger.info("driving for %g s ...", cfg.seconds)


def _watch(links: Links, control: _Child, policy: _Child) -> str:
    """Watches until the control process ends; returns what went wrong, or an empty text."""
    last_tick, last_news_s, error = -1.0, time.monotonic(), ""
    while not control.has_ended:
        control.listen()
        policy.listen()
        if policy.has_ended and not error and not control.has_ended:
            links.board[Word.POLICY_ALIVE] = 0
            error = policy.why()
            control.process.join(_LINGER_S)
            links.board[Word.STOP] = 1
        tick = links.board[Word.CONTROL_TICK]
        if tick != last_tick or control.facts:
            last_tick, last_news_s = tick, time.monotonic()
        elif time.monotonic() - last_news_s > _LONGEST_SILENCE_S:
            control.process.kill()
            raise RobotError(
                f"the control process made no tick for {_LONGEST_SILENCE_S:.0f} s and was stopped"
            )
        control.process.join(_POLL_S)
    return error


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _signal(signal.SIGTERM, interrupt):
        yield


@contextmanager
def _emergency_stop_by_signal(board: Board) -> Iterator[None]:
    """SIGUSR1 to the supervisor presses the emergency stop, SIGUSR2 resets it."""

    def press(*_: object) -> None:
        board[Word.EMERGENCY_STOP] = board[Word.EMERGENCY_STOP] + 1

    def reset(*_: object) -> None:
        board[Word.EMERGENCY_RESET] = board[Word.EMERGENCY_RESET] + 1

    with _signal(signal.SIGUSR1, press), _signal(signal.SIGUSR2, reset):
        yield


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C from the first: stopping them is the supervisor's task."""
    with _signal(signal.SIGINT, signal.SIG_IGN):
        yield


@contextmanager
def _signal(number: signal.Signals, handler: Any) -> Iterator[None]:
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread may; others go without
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def _single_threaded_linear_algebra() -> Iterator[None]:
    """Processes started inside make no helper threads for 6 x 6 matrices; torch's threads are set on their own."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
