import subprocess
import sys

import pytest

from vla.control.config import ControlConfig
from vla.errors import ConfigError


def test_rates_and_ages_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"control.servo_hz is 1000; expected 50 to 500"):
        ControlConfig(servo_hz=1000)
    with pytest.raises(ConfigError, match=r"control\.max_action_age_ms is 0"):
        ControlConfig(max_action_age_ms=0)


def test_settings_are_read_without_loading_a_physics_engine():
    modules = "vla.control.config, vla.control.policy_side, vla.robots.config"
    script = f"import sys, {modules}; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
