"""A feed is filled by hand, second by second, and looked at as a supervisor does."""

import json

import numpy as np
import pytest

from vla.control.black_box import MAX_FILES, WINDOW_S, BlackBox
from vla.control.checks import Check
from vla.control.feed import Feed, ShownLog, TickRing
from vla.control.limits import PANDA
from vla.control.log import Mode

HZ = 100


class Drive:
    """Writes ticks at 100 Hz and lets the black box look twenty times a second."""

    def __init__(self, directory) -> None:
        self.log = ShownLog(100_000, 7, feed := Feed(TickRing(7)))
        self.box = BlackBox(feed, PANDA, directory)
        self.tick = 0

    def go(self, seconds: float, breach: Check | None = None) -> None:
        for _ in range(round(seconds * HZ)):
            now_s = self.tick / HZ
            if breach is None:
                self.log.no_hold()
            else:
                self.log.hold(breach, "joint3 moves at 3.100 rad/s, limit 2.175 rad/s", now_s)
            mode = Mode.MOVE if breach is None else Mode.HOLD
            self.log.add(time_s=now_s, mode=mode, joints=np.full(7, now_s), command=np.zeros(7))
            self.tick += 1
            if self.tick % 5 == 0:
                self.box.poll()


@pytest.fixture
def drive(tmp_path) -> Drive:
    return Drive(tmp_path)


def load(path) -> tuple[dict, dict]:
    with np.load(path) as file:
        return dict(file), json.loads(path.with_suffix(".json").read_text())


def test_a_drive_without_a_breach_writes_nothing(drive, tmp_path):
    drive.go(30)
    assert drive.box.finish() is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_after_a_breach_the_last_ten_seconds_are_on_disk(drive):
    drive.go(20)
    drive.go(0.3, Check.VELOCITY)
    assert drive.box.files == []
    drive.go(1)
    (path,) = drive.box.files
    assert path.name == "black_box_01_velocity.npz"
    rows, facts = load(path)
    assert rows["time_s"][-1] == pytest.approx(21.0, abs=0.06)
    assert np.ptp(rows["time_s"]) == pytest.approx(WINDOW_S, abs=0.011)
    np.testing.assert_array_equal(np.diff(rows["time_s"]).round(6), 0.01)
    np.testing.assert_array_equal(rows["joints"][:, 3], rows["time_s"])
    assert facts["message"] == "joint3 moves at 3.100 rad/s, limit 2.175 rad/s"
    assert facts["began_at_s"] == 20.0
    assert facts["limits"]["velocity_rad_s"][2] == 2.175


def test_breaches_soon_after_one_another_share_a_file_that_reaches_back_to_the_first_of_them(drive):
    drive.go(12)
    for _ in range(4):
        drive.go(0.1, Check.TRACKING)
        drive.go(1.9)
    drive.go(20)
    assert [path.name for path in drive.box.files] == [
        "black_box_01_tracking_error.npz",
        "black_box_02_tracking_error.npz",
    ]
    first, second = (load(path)[0] for path in drive.box.files)
    held = [rows["time_s"][rows["mode"] == Mode.HOLD] for rows in (first, second)]
    assert {*held[0].round(2), *held[1].round(2)} >= {12.0, 14.0, 16.0, 18.0}


def test_a_breach_at_the_end_of_a_drive_is_written_when_it_ends(drive):
    drive.go(3)
    drive.go(0.1, Check.WORKSPACE)
    path = drive.box.finish()
    assert path is not None
    assert load(path)[1]["check"] == "workspace"


def test_a_control_process_that_ended_by_itself_leaves_its_last_seconds(drive):
    drive.go(15)
    path = drive.box.finish("the control process ended: signal SIGKILL")
    assert path is not None
    assert path.name == "black_box_01_control_ended.npz"
    assert load(path)[1]["message"] == "the control process ended: signal SIGKILL"


def test_a_check_that_fails_all_the_time_does_not_fill_the_disk(drive, tmp_path):
    for _ in range(MAX_FILES + 3):
        drive.go(0.2, Check.POLICY_LATE)
        drive.go(10)
    assert len(drive.box.files) == MAX_FILES
    assert len(list(tmp_path.glob("*.npz"))) == MAX_FILES
