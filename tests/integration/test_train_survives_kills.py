"""`vla train` killed again and again ends where an undisturbed run ends, to the last bit."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_data import make_episode, write_dataset

from vla.checkpoints import native
from vla.training.track import read_jsonl

STEPS = 400


def train(root: Path, run_directory: Path) -> subprocess.Popen[bytes]:
    settings = [
        f"data.roots=['{root}']", "data.validation_fraction=0.2", "backbone.image_size=16", "backbone.width=32",
        "backbone.depth=1", "backbone.vision_width=32", "backbone.vision_depth=1", "backbone.chunk_length=2",
        f"training.steps={STEPS}", "training.batch_size=4", "training.precision=fp32", "training.num_threads=1",
        "training.log_every=10", "training.validate_every=100", "training.checkpoint_every=20", "resume=true",
        f"run_directory={run_directory}",
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "vla.cli.main", "train", *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def steps_done(run_directory: Path) -> int:
    path = run_directory / "metrics.jsonl"
    rows = read_jsonl(path) if path.exists() else []
    return int(rows[-1]["step"]) if rows else 0


def kill_soon(process: subprocess.Popen[bytes], run_directory: Path, rng: random.Random) -> None:
    """Kills the process somewhere between its imports and a few dozen steps into its work."""
    begun, already = time.monotonic(), steps_done(run_directory)
    wait_for_steps = already + rng.choice([0, 0, 10, 20, 30])
    while process.poll() is None and time.monotonic() - begun < 60:
        if steps_done(run_directory) >= wait_for_steps and time.monotonic() - begun > 2:
            time.sleep(rng.uniform(0, 0.5))
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [20])
def test_twenty_kills_change_nothing(tmp_path: Path, num_kills: int):
    root = write_dataset(tmp_path / "data", [make_episode(k, 6) for k in range(10)])
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    finish(train(root, whole))
    rng = random.Random(7)
    for _ in range(num_kills):
        kill_soon(train(root, torn), torn, rng)
    finish(train(root, torn))
    losses = [
        [row["train/loss"] for row in read_jsonl(d / "metrics.jsonl") if "train/loss" in row]
        for d in (whole, torn)
    ]
    assert losses[0] == losses[1]
    ends = [json.loads((d / "summary.json").read_text())["metrics"]["loss"] for d in (whole, torn)]
    assert ends[0] == ends[1]
    ours, theirs = (native.load_training_state(d).tensors for d in (torn, whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
