"""A policy process that is stopped, killed or drowned out: the arm is held in time, and goes on or not, as configured.

On the real clock, in processes of their own. What happens when is decided by what the control loop's own rows say, and
time is counted in those rows, so that a slow machine makes these tests slow but not wrong.
"""

import contextlib
import json
import multiprocessing.process
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vla.cli.config import compose
from vla.cli.deploy import processes
from vla.cli.deploy.command import DeployConfig, run
from vla.control.board import Word
from vla.control.feed import TickRing
from vla.control.log import Mode
from vla.control.messages import SharedLinks

AGE_S, PERIOD_S, ACTION_S = 0.3, 0.01, 0.1
GRACE_S = 0.05  # a hold comes at most this long after the staleness limit
PATIENCE_S = 60.0


class Watcher:
    """Sees the rows of a drive as they are written, in this process, and may interfere."""

    def __init__(self, shared: SharedLinks) -> None:
        assert shared.feed is not None
        self.shared, self.board = shared, shared.links.board
        self.ring = TickRing(7, shared.feed._memory.buf)

    def modes(self) -> list[int]:
        return self.ring.read_new()["mode"].astype(int).tolist()

    def until(self, mode: Mode, rows: int = 1) -> None:
        """Waits for new rows of this mode."""
        deadline, seen = time.monotonic() + PATIENCE_S, 0
        self.ring.skip()
        while seen < rows:
            assert time.monotonic() < deadline, f"no {mode.name} within {PATIENCE_S:.0f} s"
            seen += self.modes().count(mode)
            time.sleep(0.01)

    def rows(self, count: int) -> list[int]:
        """Returns the modes of the next rows, at least `count`."""
        self.ring.skip()
        modes: list[int] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(modes) < count and time.monotonic() < deadline:
            modes += self.modes()
            time.sleep(0.01)
        return modes

    @staticmethod
    def signal_policy(number: signal.Signals) -> None:
        # not active_children(): that would reap what the supervisor waits for
        pids = {child.name: child.pid for child in multiprocessing.process._children}
        os.kill(pids["policy"], number)

    @contextmanager
    def flood(self) -> Iterator[None]:
        """Publishes old snapshots and old chunks as fast as it can, from a thread of its own."""
        links = self.shared.links
        deadline = time.monotonic() + PATIENCE_S
        while (snapshot := links.snapshots.read_new()) is None:
            assert time.monotonic() < deadline
        while (chunk := links.chunks.read_new()) is None:
            assert time.monotonic() < deadline
        stale = {name: value.copy() for name, value in snapshot.values.items()}
        old = {name: value.copy() for name, value in chunk.values.items()}
        is_over = threading.Event()

        def pour() -> None:
            while not is_over.is_set():
                for _ in range(20):
                    links.snapshots.publish(**stale)
                    links.chunks.publish(**old)
                time.sleep(0.0005)

        thread = threading.Thread(target=pour)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def drive(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[Watcher], None],
    *overrides: str,
) -> tuple[dict, dict]:
    """Drives until `script` has ended and returns (summary, rows)."""
    made: list[SharedLinks] = []
    build = processes.build_links
    monkeypatch.setattr(processes, "build_links", lambda cfg: made.append(build(cfg)) or made[0])
    errors: list[BaseException] = []

    def play() -> None:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not (made and made[0].feed):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            watcher = Watcher(made[0])
            try:
                watcher.until(Mode.MOVE, rows=20)
                script(watcher)
            finally:
                watcher.ring.release()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            errors.append(error)
        finally:
            with contextlib.suppress(AttributeError):  # the drive has ended by itself
                made[0].links.board[Word.STOP] = 1

    words = ["policy=random", "save_video=false", "seconds=600"]
    words += [f"control.max_action_age_ms={1e3 * AGE_S}", "control.safety.max_overruns=1000"]
    thread = threading.Thread(target=play)
    thread.start()
    try:
        summary = run(compose("deploy", DeployConfig, [*words, *overrides]), directory)
    finally:
        thread.join()
    if errors:
        raise errors[0]
    with np.load(directory / "ticks.npz") as file:
        return summary, dict(file)


def assert_held_in_time(summary: dict, rows: dict, reason: str) -> None:
    """Counts ticks, not seconds: a tick that came late saw an older observation, and had to hold at once."""
    mode = rows["mode"]
    is_moving = mode == Mode.MOVE
    limit_s = AGE_S + ACTION_S + 2 * PERIOD_S
    assert np.nanmax(rows["action_age_s"][is_moving]) <= limit_s + 1e-9
    held = np.flatnonzero(mode == Mode.HOLD)
    assert len(held), summary["hold_reasons"]
    last_move = np.flatnonzero(is_moving[: held[0]])[-1]
    assert (held[0] - last_move) * PERIOD_S <= AGE_S + GRACE_S
    assert reason in summary["hold_reasons"]
    assert summary["limit_violations"] == 0
    box = next(name for name in summary["black_boxes"] if "policy" in name)
    assert box.startswith("black_box_01")


def test_a_stopped_policy_process_holds_the_arm_and_it_goes_on_when_the_process_does(
    tmp_path, monkeypatch
):
    def script(drive: Watcher) -> None:
        drive.signal_policy(signal.SIGSTOP)
        drive.until(Mode.HOLD)
        drive.signal_policy(signal.SIGCONT)
        drive.until(Mode.MOVE, rows=5)

    summary, rows = drive(tmp_path, monkeypatch, script)
    assert_held_in_time(summary, rows, "policy_late")
    box = next(tmp_path.glob("black_box_01_*.npz"))
    facts = json.loads(box.with_suffix(".json").read_text())
    assert "ms" in facts["message"]
    assert box.with_suffix(".png").exists()
    with np.load(box) as kept:
        assert np.ptp(kept["time_s"]) <= 10.0
        assert (kept["mode"] == Mode.HOLD).any()
        assert (kept["mode"] == Mode.MOVE).any()


def test_where_it_is_configured_a_policy_that_was_stopped_is_refused_until_somebody_resets_the_stop(
    tmp_path, monkeypatch
):
    def script(drive: Watcher) -> None:
        drive.signal_policy(signal.SIGSTOP)
        drive.until(Mode.HOLD)
        drive.signal_policy(signal.SIGCONT)
        assert set(drive.rows(100)) == {Mode.HOLD}
        drive.board[Word.EMERGENCY_RESET] = 1
        drive.until(Mode.MOVE, rows=5)

    summary, rows = drive(tmp_path, monkeypatch, script, "control.safety.after_policy_loss=refuse")
    assert_held_in_time(summary, rows, "policy_late")


def test_a_killed_policy_process_holds_the_arm(tmp_path, monkeypatch):
    def script(drive: Watcher) -> None:
        drive.signal_policy(signal.SIGKILL)
        drive.until(Mode.HOLD, rows=5)

    summary, rows = drive(tmp_path, monkeypatch, script)
    assert set(summary["hold_reasons"]) & {"policy_late", "policy_ended"}
    reason = "policy_ended" if "policy_ended" in summary["hold_reasons"] else "policy_late"
    assert_held_in_time(summary, rows, reason)


def test_where_it_is_configured_a_policy_process_that_was_killed_is_started_again_and_the_arm_goes_on(
    tmp_path, monkeypatch
):
    def script(drive: Watcher) -> None:
        drive.signal_policy(signal.SIGKILL)
        drive.until(Mode.HOLD, rows=5)
        drive.until(Mode.MOVE, rows=5)

    summary, rows = drive(tmp_path, monkeypatch, script, "policy_restarts=1")
    assert_held_in_time(summary, rows, "policy_ended")
    assert "exit_code" not in summary


def test_a_flood_of_old_messages_holds_the_arm_and_it_goes_on_afterwards(tmp_path, monkeypatch):
    def script(drive: Watcher) -> None:
        with drive.flood():
            drive.until(Mode.HOLD, rows=5)
        drive.until(Mode.MOVE, rows=5)

    summary, rows = drive(tmp_path, monkeypatch, script)
    assert_held_in_time(summary, rows, "policy_late")
