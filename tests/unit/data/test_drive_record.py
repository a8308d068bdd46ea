import threading

import numpy as np
import pytest

from vla.data import drive_record
from vla.data.drive_record import DriveRecorder, drive_layout
from vla.data.lerobot import open_frames
from vla.errors import DatasetError
from vla.types import TABLETOP

LAYOUT = drive_layout(TABLETOP, {"front": (16, 24)}, "tabletop")
IDENTITY = {"recorded_by": "test"}


def recorder(root) -> DriveRecorder:
    return DriveRecorder(root, LAYOUT, IDENTITY)


def add(recorder: DriveRecorder, times_s, value: float = 0.1) -> None:
    for i, time_s in enumerate(times_s):
        image = np.full((16, 24, 3), i, np.uint8)
        state = np.full(7, value + i, np.float32)
        recorder.add({"front": image}, state, np.full(7, value, np.float32), time_s)


def frames(root):
    return open_frames(
        root, cameras=["front"], action_width=7, state_width=7, rate_hz=10, cache=False
    )


def test_a_drive_opens_as_a_dataset(tmp_path):
    drive = recorder(tmp_path)
    drive.begin("take the cube", {"scene": 3})
    add(drive, np.arange(8) / 10)
    drive.end("success")
    counts = drive.close()
    assert (counts.frames, counts.episodes, counts.trouble) == (8, 1, [])
    opened = frames(tmp_path)
    assert opened.tasks == ["take the cube"]
    assert opened.scene.tolist() == [3]
    np.testing.assert_allclose(opened.state[:, 0], 0.1 + np.arange(8), rtol=1e-6)
    np.testing.assert_array_equal(opened.images["front"][:, 0, 0, 0], np.arange(8))


def test_a_pause_ends_an_episode_and_a_late_step_does_not(tmp_path):
    drive = recorder(tmp_path)
    drive.begin("go", {})
    add(drive, [0.0, 0.1, 0.2, 0.34, 0.44, 0.54])  # one step took 140 ms
    add(drive, [1.5, 1.6, 1.7, 1.8, 1.9], 0.2)  # held for a second in between
    drive.close()
    assert frames(tmp_path).episode_ends.tolist() == [6, 11]


def test_short_stretches_are_left_out_and_counted(tmp_path):
    drive = recorder(tmp_path)
    drive.begin("go", {})
    add(drive, [0.0, 0.1, 0.2])
    counts = drive.close()
    assert (counts.frames, counts.short_frames) == (0, 3)
    assert not (tmp_path / "meta" / "info.json").exists()


def test_another_drive_is_added_to_the_same_dataset(tmp_path):
    for _ in range(2):
        drive = recorder(tmp_path)
        drive.begin("go", {})
        add(drive, np.arange(6) / 10)
        drive.close()
    assert frames(tmp_path).num_episodes == 2


def test_somebody_elses_dataset_is_refused_before_the_drive(tmp_path):
    recorder(tmp_path).close()
    with pytest.raises(DatasetError):
        DriveRecorder(tmp_path, LAYOUT, {"recorded_by": "somebody else"})


def test_a_slow_disk_costs_the_oldest_episodes_and_never_waits(tmp_path, monkeypatch):
    may_write = threading.Event()
    stage = drive_record.stage_episode

    def slow(*arguments) -> None:
        may_write.wait(30)
        stage(*arguments)

    monkeypatch.setattr(drive_record, "stage_episode", slow)
    drive = recorder(tmp_path)
    for episode in range(6):
        drive.begin(f"episode {episode}", {})
        add(drive, np.arange(5) / 10)
        drive.end()
    may_write.set()
    counts = drive.close()
    assert counts.dropped_frames >= 15
    assert counts.frames + counts.dropped_frames == 30
    assert "episode 5" in frames(tmp_path).tasks


def test_a_full_disk_stops_the_recording_and_not_the_drive(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drive_record, "stage_episode", full)
    drive = recorder(tmp_path)
    for _ in range(2):
        drive.begin("go", {})
        add(drive, np.arange(5) / 10)
        drive.end()
    counts = drive.close()
    assert counts.dropped_frames == 10
    assert "No space left" in counts.trouble[0]


def test_a_long_episode_goes_on_as_another_so_that_memory_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(drive_record, "_MAX_EPISODE_BYTES", 10 * 16 * 24 * 3)
    monkeypatch.setattr(drive_record, "_MAX_WAITING", 8)
    drive = recorder(tmp_path)
    drive.begin("go", {})
    add(drive, np.arange(25) / 10)
    drive.close()
    assert frames(tmp_path).episode_ends.tolist() == [10, 20, 25]
