import numpy as np
import pytest

from envs import controller
from vla.errors import ConfigError
from vla.robots.config import RobotConfig


def test_an_unknown_arm_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"unknown arm 'ur5'; choose one of .*panda"):
        RobotConfig(arm="ur5")


@pytest.mark.parametrize("corner", [[0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
def test_a_corner_needs_three_numbers(corner):
    with pytest.raises(ConfigError, match=r"robot\.workspace_low_m needs x, y and z"):
        RobotConfig(workspace_low_m=corner)


def test_an_empty_workspace_is_refused():
    with pytest.raises(ConfigError, match="give low < high on each axis"):
        RobotConfig(workspace_high_m=[0.0, 0.0, 0.0])


def test_the_workspace_is_the_one_that_policies_are_trained_in():
    workspace = RobotConfig().workspace()
    np.testing.assert_array_equal(workspace.low, controller.WORKSPACE_LOW_M)
    np.testing.assert_array_equal(workspace.high, controller.WORKSPACE_HIGH_M)
    assert workspace.max_tilt_rad == controller.MAX_TILT_RAD
    assert workspace.max_yaw_rad == controller.MAX_YAW_RAD
