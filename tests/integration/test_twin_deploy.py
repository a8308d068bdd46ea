"""`vla deploy robot=so101` on a twin: the whole way from a policy to motors, trouble included."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("scservo_sdk", reason="the hardware extra is not installed")
pytestmark = pytest.mark.slow

VLA = [sys.executable, "-m", "vla.cli.main"]


@pytest.fixture
def twin(tmp_path: Path):
    """A twin in a process of its own, as a user starts it; gives its port and the folder of its calibration."""
    port, run = tmp_path / "port", tmp_path / "twin"
    arguments = ["twin", "so101", f"link={port}", f"run_directory={run}", "id=rehearsal"]
    arguments += ["twin.camera_port=0", "twin.faults.corrupt_every=50"]
    arguments += ["twin.faults.dies_at_s=12", "twin.faults.dies_for_s=2"]
    environment = {**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    process = subprocess.Popen(
        [*VLA, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    first, command = process.stdout.readline(), process.stdout.readline()
    assert first.startswith(f"port {port}")
    assert command.startswith("vla deploy robot=so101")
    yield command.split()[1:]
    process.terminate()
    process.communicate(timeout=20)


def deploy(command: list[str], run: Path, *more: str) -> dict:
    words = [word.strip('"') for word in command]  # what the twin printed is for a shell
    arguments = [*VLA, *words, *more, f"run_directory={run}"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=400, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads((run / "summary.json").read_text())


def test_an_expert_reaches_points_through_a_bus_that_damages_packets_and_dies(twin, tmp_path):
    began = time.monotonic()
    summary = deploy(twin, tmp_path / "run", "policy=expert", "seconds=30")
    assert time.monotonic() - began < 300
    assert summary["limit_violations"] == 0
    assert summary["arm"]["is_parked"]
    assert any("has not answered" in fault for fault in summary["arm"]["faults"])
    assert summary["torch_in_control_process"] is False
    assert summary["rate_hz"] == 50
    assert summary["successes"] >= 3


def test_the_policy_that_is_shipped_runs_on_it(twin, tmp_path):
    """It was trained on another arm and need not succeed; what it asks for keeps every limit."""
    summary = deploy(
        twin, tmp_path / "run", "policy=tiny", "seconds=15", "instruction=pick up the cube"
    )
    assert summary["limit_violations"] == 0
    assert summary["answers"] > 3
    assert summary["arm"]["is_parked"]
