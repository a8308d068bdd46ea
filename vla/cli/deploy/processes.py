"""The supervisor of a drive: starts the control and the policy process, watches both, and always cleans up."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla.cli.deploy.command import DeployConfig
from vla.cli.deploy.watch import watch_main
from vla.cli.deploy.workers import Ended, build_links, control_main, driver_main, policy_main
from vla.control.black_box import BlackBox
from vla.control.board import Board, Word
from vla.control.feed import SharedFeed
from vla.control.limits import joint_limits
from vla.control.memory import MemoryWatch
from vla.control.messages import Links, SharedLinks
from vla.errors import RobotError, VlaError
from vla.robots.config import RobotKind

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_LINGER_S = 1.0  # how long a drive goes on holding after the policy process has died, so that the log shows it
_LONGEST_END_S = 15.0  # for the control process to stop and write its log
_LONGEST_FILM_S = 300.0
_LONGEST_PARKING_S = 40.0
_LONGEST_RECORDING_S = 300.0
_LONGEST_SILENCE_S = 5.0  # without a new tick, when the loop should be running


class _Child:
    """One process of the drive and what it has said so far."""

    def __init__(
        self, target: Any, cfg: DeployConfig, shared: SharedLinks, directory: Path
    ) -> None:
        self._target, self._arguments = target, (cfg, shared)
        self._directory = directory
        self.name = target.__name__.removesuffix("_main")
        self._start()
        self.facts: dict[str, Any] = {}
        self.granted: str | None = None
        self.refusal: VlaError | None = None
        self.crash = ""
        self.faults: list[str] = []

    def start_again(self) -> None:
        """Starts the same process anew, in place of one that has ended."""
        self._pipe.close()
        self.refusal, self.crash = None, ""
        self._start()

    def _start(self) -> None:
        # a fork would copy GL contexts and torch's threads
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe(duplex=False)
        arguments = (*self._arguments, other, self._directory)
        self.process = context.Process(
            target=self._target, args=arguments, name=self.name, daemon=True
        )
        self.process.start()
        other.close()

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
                    case ("fault", fault):
                        self._note_fault(fault)
                    case ("info", line):
                        logger.info("%s", line)
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

    def _note_fault(self, fault: str) -> None:
        if fault:
            logger.warning("the arm is held: %s", fault)
            self.faults.append(fault)
        else:
            logger.info("the arm is well again")

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
    limits = joint_limits(cfg.robot.arm)
    shared.feed = shared.feed or SharedFeed(limits.num_joints)
    try:
        with _terminable(), _emergency_stop_by_signal(shared.links.board):
            with _deaf_to_interrupts(), _single_threaded_linear_algebra():
                watch = _start_watching(cfg, shared, directory) if cfg.has_onlooker else None
                control = _Child(control_main, cfg, shared, directory)
                policy = _Child(policy_main, cfg, shared, directory)
                is_real = cfg.robot.kind is RobotKind.LEROBOT
                driver = _Child(driver_main, cfg, shared, directory) if is_real else None
            black_box = BlackBox(shared.feed.feed, limits, directory)
            try:
                ended = _supervise(cfg, shared.links, control, policy, driver, black_box)
            finally:
                facts = _end_watching(watch)
            ended.watch = facts
            return ended
    finally:
        shared.unlink()


def _start_watching(cfg: DeployConfig, shared: SharedLinks, directory: Path) -> _Child:
    """Returns the process that looks on once it is ready, so that it misses nothing; raises what it refused."""
    watch = _Child(watch_main, cfg, shared, directory)
    deadline = time.monotonic() + cfg.start_timeout_s
    while watch.granted is None:
        watch.listen()
        if watch.has_ended or time.monotonic() > deadline:
            watch.listen()
            watch.process.kill()
            raise watch.refusal or RobotError(watch.why())
        time.sleep(_POLL_S)
    return watch


def _end_watching(watch: _Child | None) -> dict[str, Any]:
    """Waits until what was recorded is on disk; an onlooker that failed costs its recording, not the drive."""
    if watch is None:
        return {}
    watch.finish(_LONGEST_RECORDING_S)
    if watch.facts:
        return watch.facts
    logger.error("%s; what it had not yet written is lost", watch.why())
    return {"error": watch.why()}


def _supervise(
    cfg: DeployConfig,
    links: Links,
    control: _Child,
    policy: _Child,
    driver: _Child | None,
    black_box: BlackBox,
) -> Ended:
    ended = Ended()
    memory = MemoryWatch({child.name: child.process.pid or 0 for child in (control, policy)})
    links.board[Word.POLICY_ALIVE] = 1
    try:
        _await_start(cfg, links, control, policy, driver)
        recorders = (black_box, memory)
        ended.error = _watch(links, control, policy, driver, recorders, cfg.policy_restarts)
    except KeyboardInterrupt:
        ended.is_interrupted = True
    finally:
        links.board[Word.STOP] = 1
        control.finish(_LONGEST_END_S)
        black_box.finish(control.why() if control.has_failed else "")
        ended.black_boxes, ended.memory = black_box.files, memory.facts()
        if driver is not None:
            driver.finish(_LONGEST_PARKING_S)
            ended.driver = {**driver.facts, "faults": driver.faults}
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


def _await_start(
    cfg: DeployConfig, links: Links, control: _Child, policy: _Child, driver: _Child | None
) -> None:
    """Waits until the loop runs; raises when one of the processes cannot start."""
    children = (control, policy) if driver is None else (driver, control, policy)
    logger.info("loading the policy ...")
    deadline = time.monotonic() + cfg.start_timeout_s
    while control.granted is None:
        for child in children:
            child.listen()
            if child.has_ended and control.granted is None:
                child.listen()
                raise child.refusal or RobotError(child.why())
        if time.monotonic() > deadline:
            raise RobotError(
                f"policy and robot were not ready within {cfg.start_timeout_s:.0f} s; give start_timeout_s=SECONDS"
            )
        time.sleep(_POLL_S)
    if control.granted:
        logger.warning("%s", control.granted)
    logger.info("driving for %g s ...", cfg.seconds)


def _watch(
    links: Links,
    control: _Child,
    policy: _Child,
    driver: _Child | None,
    recorders: Sequence[BlackBox | MemoryWatch],
    policy_restarts: int,
) -> str:
    """Watches until the control process ends; returns what went wrong, or an empty text."""
    last_tick, last_news_s, error = -1.0, time.monotonic(), ""
    while not control.has_ended:
        control.listen()
        policy.listen()
        for recorder in recorders:
            recorder.poll()
        if driver is not None:
            driver.listen()
            if driver.has_ended and not error and not links.board[Word.STOP]:
                error = driver.why()
                links.board[Word.STOP] = 1
        if not links.board[Word.POLICY_ALIVE] and links.scenes.read_new() is not None:
            links.board[Word.POLICY_ALIVE] = 1  # a policy that was started again is ready
        is_lost = (
            policy.has_ended and not error and not links.board[Word.STOP]
        )  # asked to stop, it ends by itself
        if is_lost and policy_restarts > 0:
            policy_restarts -= 1
            _start_again(links, policy)
        elif is_lost and not control.has_ended:
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


def _start_again(links: Links, policy: _Child) -> None:
    """Starts a policy process that has died anew; the arm is held until its first scene is there."""
    links.board[Word.POLICY_ALIVE] = 0
    logger.warning("%s; the arm is held while it is started again", policy.why())
    links.scenes.read_new()
    with _deaf_to_interrupts(), _single_threaded_linear_algebra():
        policy.start_again()


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
