"""A drive that is looked at, recorded and rehearsed, as processes of their own on the real clock.

Nothing here depends on how fast the machine is: what a slow one drops is counted, and the counts must add up.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the serve extra is not installed")

from browser import Browser, find_chromium
from PIL import Image

from vla.cli.config import compose
from vla.cli.deploy.command import DeployConfig, run
from vla.data.lerobot import open_frames
from vla.errors import ConfigError, DatasetError

REPOSITORY = Path(__file__).resolve().parents[2]


def drive(directory: Path, *overrides: str) -> dict:
    directory.mkdir(exist_ok=True)
    words = ["policy=random", "save_video=false", *overrides]
    return run(compose("deploy", DeployConfig, words), directory)


def shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}


def test_a_recorded_drive_opens_for_training_and_says_what_the_arm_did(tmp_path):
    before = shared_memory()
    summary = drive(
        tmp_path / "run", "seconds=4", f"record={tmp_path / 'driven'}", "episode_seconds=1.5"
    )
    recorded = summary["watch"]["recorded"]
    assert recorded["trouble"] == []
    frames = open_frames(
        tmp_path / "driven",
        cameras=["front", "wrist"],
        action_width=7,
        state_width=7,
        rate_hz=10,
        cache=False,
    )
    assert len(frames) == recorded["frames"] > 5
    assert frames.num_episodes == recorded["episodes"]
    with np.load(tmp_path / "run" / "ticks.npz") as log:
        consumed, episode, action = log["consumed"], log["episode"], log["action"]
    begins = np.flatnonzero((np.diff(consumed, prepend=0) > 0) | (np.diff(episode, prepend=0) > 0))
    begun = {tuple(np.float32(action[i])) for i in begins if np.isfinite(action[i]).all()}
    assert {tuple(row) for row in frames.actions} <= begun
    lost = recorded["dropped_frames"] + recorded["short_frames"]
    assert recorded["frames"] + lost + summary["watch"]["frames_without_picture"] >= len(begun) - 3
    assert shared_memory() <= before


def test_a_rehearsal_sends_nothing_and_says_what_would_have_been_sent(tmp_path, capsys):
    summary = drive(tmp_path, "seconds=2", "dry_run=true", "env=reach")
    with np.load(tmp_path / "ticks.npz") as log:
        joints, command = log["joints"], log["command"]
    assert np.abs(joints - joints[0]).max() < 0.02  # the arm sags a little and moves no further
    assert np.abs(command - joints).max() > 0.02
    assert summary["rehearsal"]["commands"] == len(command)
    assert "commands would have been sent; nothing was" in capsys.readouterr().out
    assert summary["limit_violations"] == 0


def test_what_cannot_be_recorded_is_refused_before_anything_moves(tmp_path):
    before = shared_memory()
    (tmp_path / "foreign" / "meta").mkdir(parents=True)
    (tmp_path / "foreign" / "meta" / "info.json").write_text("{}")
    with pytest.raises(DatasetError):
        drive(tmp_path / "run", "seconds=60", f"record={tmp_path / 'foreign'}")
    assert not (tmp_path / "run" / "ticks.npz").exists()
    assert shared_memory() <= before


def test_rerun_is_named_with_the_way_to_install_it_when_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from vla.cli.deploy.rerun_recorder import check_rerun_installed

    with pytest.raises(ConfigError, match="pip install 'rerun-sdk"):
        check_rerun_installed()


def test_onlookers_need_the_real_clock():
    with pytest.raises(ConfigError, match="use time=real"):
        compose("deploy", DeployConfig, ["time=simulated", "record=somewhere"])


def test_an_onlooker_that_dies_costs_its_recording_and_not_the_drive(tmp_path):
    process = start(tmp_path, "seconds=6", f"record={tmp_path / 'driven'}")
    await_line(process, "driving for")
    os.kill(child_of(process.pid, "watch"), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "the watch process ended: signal SIGKILL" in errors
    summary = json.loads((tmp_path / "deploy" / "latest" / "summary.json").read_text())
    assert summary["ticks"] + summary["misses"] >= 590
    assert "SIGKILL" in summary["watch"]["error"]


# ---- the page ------------------------------------------------------------------------------------------------------


def start(output: Path, *words: str) -> subprocess.Popen:
    words = ("deploy", "policy=random", "save_video=false", f"output_root={output}", *words)
    return subprocess.Popen(
        [sys.executable, "-m", "vla.cli.main", *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_line(process: subprocess.Popen, text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    pytest.fail(f"the command ended without saying {text!r}")


def child_of(pid: int, target: str) -> int:
    """Returns the youngest child, the oldest being the first to be started: the one that looks on comes first."""
    assert target == "watch"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        spawned = [
            int(child)
            for child in children
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        if spawned:
            return min(spawned)
    pytest.fail("no process was started")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_drive_and_says_when_it_has_ended(tmp_path):
    process = start(
        tmp_path, "seconds=12", "view=true", "page.port=0", "instruction='show <b>this</b>'"
    )
    found = re.search(r"http://127\.0\.0\.1:\d+/", await_line(process, "live page:"))
    assert found is not None
    await_line(process, "driving for")
    with Browser(tmp_path / "profile") as browser:
        browser.resize(390, 844, 2.0)
        browser.open(found[0])
        browser.wait_for("document.body?.dataset.updates > 10")
        browser.wait_for("document.querySelectorAll('#pictures img[data-width]').length == 2")
        shown = browser.evaluate("document.body.innerText")
        for text in (
            "show <b>this</b>",
            "Planned and executed motion",
            "Deadlines",
            "Safety",
            "this policy has no bins",
        ):
            assert text in shown
        assert browser.evaluate("document.getElementById('mode').dataset.mode") in (
            "MOVE",
            "WAIT",
            "HOLD",
        )
        assert browser.evaluate("document.querySelector('#pictures img').dataset.width") == "192"
        assert int(re.findall(r"(\d+) at 100 Hz", shown)[0]) > 50
        # a phone's page scrolls downwards only, and every curve has been drawn
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for canvas in ("motion", "lateness"):
            pixels = (
                "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(x => x))"
            )
            assert browser.evaluate(f"{pixels}(document.getElementById('{canvas}'))")
        is_own = "r => r.name.startsWith('blob:') || r.name.startsWith(location.origin)"
        assert browser.evaluate(f"performance.getEntriesByType('resource').every({is_own})")
        browser.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            assert len(picture.convert("RGB").resize((60, 120)).getcolors(10_000)) > 50
        browser.wait_for("document.getElementById('mode').dataset.mode == 'ENDED'", 60)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    summary = json.loads((tmp_path / "deploy" / "latest" / "summary.json").read_text())
    assert summary["watch"]["page"]["browsers"] == 1
