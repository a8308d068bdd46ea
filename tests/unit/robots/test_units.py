import math

import numpy as np
import pytest

from vla.errors import ConfigError, RobotError
from vla.robots.cameras import parse_camera
from vla.robots.units import find_units

JOINTS = ("pan", "lift")
DEGREES = {"pan": "degrees", "lift": "degrees", "gripper": "range_0_100"}


def test_radians_become_degrees_and_an_opening_percent():
    units = find_units(JOINTS, "gripper", DEGREES, {})
    sent = units.to_driver(np.array([math.pi / 2, -math.pi, 0.25]))
    assert sent == {"pan.pos": 90.0, "lift.pos": -180.0, "gripper.pos": 25.0}


def test_an_open_gripper_is_100():
    """LeRobot: 0 closed, 100 open; ours: 0 closed, 1 open."""
    units = find_units(JOINTS, "gripper", DEGREES, {})
    assert units.to_driver(np.array([0.0, 0.0, 1.0]))["gripper.pos"] == 100.0
    assert units.from_driver({"pan": 0.0, "lift": 0.0, "gripper": 100.0})[-1] == 1.0


def test_what_is_sent_is_read_back():
    modes = {**DEGREES, "lift": "range_m100_100"}
    units = find_units(JOINTS, "gripper", modes, {"lift": 3.0})
    target = np.array([0.3, -1.2, 0.6])
    assert units.to_driver(target)["lift.pos"] == pytest.approx(-80.0)  # of half of 3 rad
    np.testing.assert_allclose(units.from_driver(units.to_driver(target)), target)


def test_joints_are_matched_by_name_not_by_place():
    units = find_units(JOINTS, "gripper", DEGREES, {})
    reading = units.from_driver({"gripper": 50.0, "lift": 180.0, "pan": 90.0})
    np.testing.assert_allclose(reading, [math.pi / 2, math.pi, 0.5])


@pytest.mark.parametrize(
    ("modes", "match"),
    [
        ({"pan": "degrees", "gripper": "range_0_100"}, "has no motor lift"),
        ({**DEGREES, "gripper": "degrees"}, "expected range_0_100"),
        ({**DEGREES, "pan": "range_0_100"}, "expected degrees or range_m100_100"),
    ],
)
def test_a_driver_with_other_motors_or_units_is_refused(modes, match):
    with pytest.raises(RobotError, match=match):
        find_units(JOINTS, "gripper", modes, {})


def test_a_camera_is_one_line_of_text():
    camera = parse_camera("front=zmq://127.0.0.1:5555/head?width=320&height=240&fps=15")
    assert (camera.name, camera.host, camera.port) == ("front", "127.0.0.1", 5555)
    assert (camera.remote_name, camera.width, camera.fps) == ("head", 320, 15)
    assert parse_camera("wrist=opencv:/dev/video2").device == "/dev/video2"


@pytest.mark.parametrize(
    "text",
    [
        "front",
        "front=",
        "front=ftp://x",
        "front=zmq://127.0.0.1",
        "f=opencv:0?size=3",
        "f=opencv:0?fps=x",
        "a b=opencv:0",
    ],
)
def test_a_camera_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match="camera"):
        parse_camera(text)
