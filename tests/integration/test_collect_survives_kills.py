"""kill -9 at random moments: no finished episode is lost, and the dataset ends up as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vla.data.lerobot import Frames, open_frames
from vla.data.manifest import read_manifest
from vla.data.staging import read_staged, staged_keys

REPOSITORY = Path(__file__).resolve().parents[2]
Start = Callable[[Path, int], subprocess.Popen]


def start_fake(root: Path, num_episodes: int) -> subprocess.Popen:
    code = f"import fake_data; fake_data.collect_main({str(root)!r}, {num_episodes}, 1)"
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})


def start_real(root: Path, num_episodes: int) -> subprocess.Popen:
    words = [
        "collect",
        "env=pick_cube",
        f"root={root}",
        f"episodes={num_episodes}",
        "num_workers=2",
    ]
    command = [
        sys.executable,
        "-m",
        "vla.cli.main",
        *words,
        f"output_root={root.parent / 'outputs'}",
    ]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def finished_in(root: Path) -> set[int]:
    manifest = read_manifest(root)
    return staged_keys(root) | {entry["key"] for entry in (manifest.episodes if manifest else [])}


def children_of(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def same(a: Frames, b: Frames) -> bool:
    names = ("actions", "state", "environment_state", "episode_ends", "scene", "task_index")
    is_alike = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    return is_alike and all(
        np.array_equal(a.images[camera], b.images[camera]) for camera in a.images
    )


def drill(
    start: Start, folder: Path, *, num_kills: int, num_episodes: int, longest_s: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    root = folder / "killed"
    before: set[int] = set()
    num_killed = 0
    while num_killed < num_kills:
        process = start(root, num_episodes + 4 * num_killed)  # always something left to do
        deadline = time.monotonic() + 60
        while (
            finished_in(root) == before and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.01)  # starting up
        time.sleep(rng.uniform(0.0, longest_s))
        children = children_of(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        num_killed += 1
        after = finished_in(root)
        assert before <= after, f"lost {sorted(before - after)}"
        for key in staged_keys(root):
            assert read_staged(root, key).num_frames > 0
        before = after
        deadline = time.monotonic() + 20
        while any(is_running(pid) for pid in children):
            assert time.monotonic() < deadline, "a recording process outlived its parent"
            time.sleep(0.05)
    total = num_episodes + 4 * num_kills
    assert start(root, total).wait() == 0
    assert start(folder / "straight", total).wait() == 0
    read = [
        open_frames(folder / name, cameras=["front", "wrist"], cache=False)
        for name in ("killed", "straight")
    ]
    assert read[0].num_episodes == total
    assert same(*read)


def test_two_kills_lose_nothing(tmp_path):
    drill(start_fake, tmp_path, num_kills=2, num_episodes=24, longest_s=0.3, seed=0)


@pytest.mark.slow
def test_twenty_kills_of_the_real_collector_lose_nothing(tmp_path):
    drill(start_real, tmp_path, num_kills=20, num_episodes=60, longest_s=2.0, seed=1)
