"""Whole drives: in one process on a simulated clock, and as processes of their own on the real one.

Nothing here depends on how fast the machine is: on the real clock only order, reasons and bookkeeping are checked.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vla.cli.config import compose
from vla.cli.deploy.command import DeployConfig, run
from vla.control.log import Mode
from vla.errors import CheckpointError, ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]


def drive(directory: Path, *overrides: str) -> dict:
    directory.mkdir(exist_ok=True)
    cfg = compose("deploy", DeployConfig, ["policy=random", "save_video=false", *overrides])
    return run(cfg, directory)


def simulate(directory: Path, *overrides: str) -> dict:
    return drive(directory, "time=simulated", *overrides)


def ticks(directory: Path) -> dict:
    with np.load(directory / "ticks.npz") as file:
        return dict(file)


def shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}


# ---- on a simulated clock ------------------------------------------------------------------------------------------


def test_the_expert_solves_episodes_one_after_the_other_within_all_limits(tmp_path):
    summary = simulate(tmp_path, "policy=expert", "env=reach", "seconds=7")
    assert summary["episodes"] >= 2
    assert summary["successes"] == summary["episodes"]
    assert summary["limit_violations"] == 0
    assert (summary["misses"], summary["holds"]) == (0, 0)
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines][:2] == [2_000_000, 2_000_001]


def test_the_same_settings_give_the_same_drive_bit_for_bit(tmp_path):
    logs = []
    for name in ("first", "second"):
        simulate(tmp_path / name, "seconds=2", "seed=7")
        logs.append(ticks(tmp_path / name))
    for column in ("joints", "command", "mode", "consumed", "action_age_s"):
        np.testing.assert_array_equal(logs[0][column], logs[1][column])


@pytest.mark.parametrize("latency_ms", [20, 90])
def test_a_stalled_policy_is_met_by_a_hold_within_100_ms_and_the_arm_goes_on_afterwards(
    tmp_path, latency_ms
):
    summary = simulate(
        tmp_path,
        "seconds=5",
        f"simulated_latency_ms={latency_ms}",
        "faults.stall_policy_at_s=1.5",
        "faults.stall_policy_for_s=2",
    )
    stall = summary["stall"]
    assert stall["held_after_ms"] <= 100.0
    assert stall["at_rest_after_ms"] is not None
    assert stall["resumed_after_ms"] <= 2 * latency_ms + 30.0
    assert summary["hold_reasons"] == {"policy_late": 1}
    assert summary["limit_violations"] == 0
    log = ticks(tmp_path)
    assert 1.7 < (log["mode"] == Mode.HOLD).sum() * 0.01 < 2.3


def test_a_policy_slower_than_the_limit_holds_the_arm_and_the_report_says_what_to_change(
    tmp_path, capsys
):
    summary = simulate(tmp_path, "seconds=2", "simulated_latency_ms=300")
    assert summary["seconds_by_mode"]["move"] == 0.0
    printed = capsys.readouterr().out
    assert "a slower policy needs a higher control.max_action_age_ms" in printed
    patient = simulate(
        tmp_path, "seconds=2", "simulated_latency_ms=300", "control.max_action_age_ms=350"
    )
    assert patient["seconds_by_mode"]["move"] > 0.3
    assert patient["holds"] == 0


def test_spoilt_and_lost_chunks_are_refused_and_counted_and_no_limit_is_violated(tmp_path):
    summary = simulate(tmp_path, "seconds=4", "faults.nan_every=3", "faults.drop_every=4")
    assert summary["refused_commands"] > 3
    assert "dx = nan m" in summary["safety"]["refusals"][0]
    assert summary["limit_violations"] == 0


def test_a_random_policy_keeps_all_limits_at_another_servo_rate(tmp_path):
    summary = simulate(tmp_path, "seconds=4", "control.servo_hz=250")
    assert summary["ticks"] >= 1000
    assert summary["limit_violations"] == 0


def test_an_instruction_of_ones_own_reaches_the_policy(tmp_path):
    summary = simulate(tmp_path, "seconds=0.5", "instruction='take the red one'")
    assert summary["episode_list"][0]["instruction"] == "take the red one"


def test_an_episode_that_takes_too_long_ends_and_the_next_begins(tmp_path):
    summary = simulate(tmp_path, "policy=hold", "seconds=3", "episode_seconds=1")
    assert [episode["outcome"] for episode in summary["episode_list"][:2]] == ["timeout", "timeout"]


def test_a_drive_is_filmed(tmp_path):
    summary = simulate(tmp_path, "seconds=1", "save_video=true")
    assert summary["video"].stat().st_size > 1000


def test_settings_that_do_not_go_together_are_refused_in_one_line():
    for override, message in (
        ("seconds=0", "seconds must be positive"),
        ("control.ensemble_decay=-1", "control.ensemble_decay is -1.0; expected 0 or more"),
        ("simulated_latency_ms=-1", "simulated_latency_ms must be 0 or more"),
        ("robot=toaster", "unknown robot 'toaster'; choose one of .*sim"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose("deploy", DeployConfig, [override])
    with pytest.raises(ConfigError, match="needs a policy process of its own"):
        compose("deploy", DeployConfig, ["time=simulated", "faults.kill_policy_at_s=1"])


# ---- on the real clock ---------------------------------------------------------------------------------------------


def test_a_real_drive_keeps_its_books_and_its_control_process_loads_no_torch(tmp_path):
    before = shared_memory()
    summary = drive(tmp_path, "seconds=1.5")
    assert summary["ticks"] + summary["misses"] >= 145
    assert summary["torch_in_control_process"] is False
    assert summary["limit_violations"] == 0
    assert summary["answers"] > 0
    assert sum(summary["lateness_histogram"]["counts"]) == summary["ticks"]
    assert "exit_code" not in summary
    assert shared_memory() <= before
    assert (tmp_path / "lateness.png").exists()


def test_when_the_policy_process_dies_the_arm_is_held_and_the_drive_ends_with_status_1(tmp_path):
    before = shared_memory()
    summary = drive(tmp_path, "seconds=60", "faults.kill_policy_at_s=0.2")
    assert summary["exit_code"] == 1
    assert summary["error"] == "the policy process ended: signal SIGKILL"
    assert "policy_ended" in summary["hold_reasons"]
    assert summary["limit_violations"] == 0
    assert shared_memory() <= before


@pytest.mark.slow  # loads torch in a process of its own
def test_a_policy_that_cannot_load_is_refused_before_anything_moves(tmp_path):
    before = shared_memory()
    with pytest.raises(CheckpointError):
        drive(tmp_path, "policy=checkpoint", f"policy.path='{tmp_path}'")
    assert shared_memory() <= before


def start_command(output: Path) -> subprocess.Popen:
    words = ["deploy", "policy=random", "seconds=120", "save_video=false", f"output_root={output}"]
    return subprocess.Popen(
        [sys.executable, "-m", "vla.cli.main", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def await_line(process: subprocess.Popen, text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the command ended without saying {text!r}")


def finish(process: subprocess.Popen, output: Path) -> dict:
    """Returns the summary of a command that was told to stop, after checking that it did so cleanly."""
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "missed deadlines" in printed
    assert "Traceback" not in errors
    summary = json.loads((output / "deploy" / "latest" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["limit_violations"] == 0
    return summary


def test_an_interrupted_drive_brings_the_arm_to_rest_reports_and_leaves_nothing_behind(tmp_path):
    before = shared_memory()
    process = start_command(tmp_path)
    await_line(process, "driving for")
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    finish(process, tmp_path)
    assert np.abs(ticks(tmp_path / "deploy" / "latest")["velocity"][-1]).max() < 0.1
    assert shared_memory() <= before


@pytest.mark.slow
def test_signals_press_the_emergency_stop_and_end_the_drive(tmp_path):
    process = start_command(tmp_path)
    await_line(process, "driving for")
    time.sleep(0.3)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.7)
    process.send_signal(signal.SIGTERM)
    assert finish(process, tmp_path)["hold_reasons"]["emergency_stop"] == 1
