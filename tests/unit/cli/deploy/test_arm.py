import numpy as np
import pytest

from vla.cli import config
from vla.cli.deploy.arm import for_hardware
from vla.cli.deploy.command import DeployConfig
from vla.cli.deploy.reach import ReachTask
from vla.errors import ConfigError
from vla.types import Observation


def compose(*overrides: str) -> DeployConfig:
    return config.compose("deploy", DeployConfig, ["robot=so101", *overrides])


def test_the_port_is_all_that_a_twin_and_an_arm_differ_by(tmp_path):
    port = tmp_path / "tty"
    port.touch()
    cfg = for_hardware(compose(f"port={port}"))
    assert cfg.robot.port == str(port)


def test_the_loop_gets_the_rate_and_the_slack_of_the_arm(tmp_path):
    cfg = for_hardware(compose(f"port={tmp_path}"))
    assert cfg.control.servo_hz == 50
    assert cfg.control.safety.max_tracking_error_rad == pytest.approx(0.35)


def test_no_port_and_no_such_port_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="no port given; add port=PATH"):
        for_hardware(compose())
    with pytest.raises(ConfigError, match=r"there is no port .*tty9; is the arm plugged in"):
        for_hardware(compose(f"port={tmp_path}/tty9"))


def test_a_real_arm_has_no_simulated_time():
    with pytest.raises(ConfigError, match="time=simulated needs robot=sim"):
        compose("time=simulated")


def observe(position: np.ndarray) -> Observation:
    return Observation(
        images={}, state=np.array([*position, 0, 0, 0, 0], np.float32), instruction=""
    )


def test_the_expert_comes_to_its_target():
    task, position = ReachTask(), np.array([0.2, 0.1, 0.15])
    task.reset(seed=3)
    for _ in range(15):
        for action in task.act(observe(position)).actions:
            position = position + action[:3]
    np.testing.assert_allclose(position, task.target, atol=1e-3)


def test_a_target_counts_when_the_tool_stays_there():
    task = ReachTask()
    task.reset(seed=3)
    assert task.judge(task.target, 10.0) == ""
    assert task.judge(task.target + 0.05, 10.3) == ""  # it only passed
    assert task.judge(task.target, 10.5) == ""
    assert task.judge(task.target, 11.0) == "success"


def test_a_target_that_is_not_reached_in_time_is_a_failure():
    task = ReachTask()
    task.reset(seed=3)
    assert task.judge(task.target + 0.1, 5.0) == ""
    assert task.judge(task.target + 0.1, 16.0) == "not_reached"


def test_the_same_seed_is_the_same_target():
    first, second = ReachTask(), ReachTask()
    first.reset(seed=7)
    second.reset(seed=7)
    np.testing.assert_array_equal(first.target, second.target)
