import json

import numpy as np
import pytest

from vla.errors import ConfigError, RobotError
from vla.robots import so101
from vla.robots.twin import calibration
from vla.robots.twin.arm import ServoArm
from vla.robots.twin.servo import Register, Servo
from vla.robots.twin.so101_twin import TwinConfig

RAISED = (0.0, 0.3, -0.3, 0.5, 0.0)


def build(joints=so101.PARKED_JOINTS) -> ServoArm:
    entries = calibration.as_drawn()
    arm = ServoArm([Servo(entries[name]) for name in so101.MOTORS], joints=joints)
    arm.advance(0.0)
    return arm


def pass_time(arm: ServoArm, begin_s: float, end_s: float) -> None:
    for now_s in np.arange(begin_s, end_s, 0.02):
        arm.advance(now_s)


def hold(arm: ServoArm) -> None:
    for servo in arm.servos:
        servo.write(Register.TORQUE_ENABLE.address, bytes((1,)))


def test_the_reach_of_the_model_is_that_of_the_published_one():
    """The gripper frame of so101_new_calib.xml at zero joints, from its own body positions."""
    np.testing.assert_allclose(build((0.0,) * 5).tool_position, [0.391, 0.0, 0.226], atol=0.001)


def test_an_arm_without_torque_drops():
    arm = build(RAISED)
    before = arm.tool_position[2]
    pass_time(arm, 0.0, 2.0)
    assert arm.tool_position[2] < before - 0.1


def test_a_parked_arm_stays_where_it_is_without_torque():
    arm = build(so101.PARKED_JOINTS)
    before = arm.tool_position
    pass_time(arm, 0.0, 2.0)
    assert np.linalg.norm(arm.tool_position - before) < 0.03


def test_an_arm_that_is_switched_on_stays_where_it_stands():
    arm = build(RAISED)
    hold(arm)
    pass_time(arm, 0.0, 1.0)
    np.testing.assert_allclose(arm.joints[:5], RAISED, atol=0.1)  # it sags a little


def test_a_goal_is_reached_and_read_back():
    arm = build()
    hold(arm)
    arm.servos[0].write(Register.GOAL_POSITION.address, (2600).to_bytes(2, "little"))
    pass_time(arm, 0.0, 2.0)
    assert arm.servos[0][Register.PRESENT_POSITION] == pytest.approx(2600, abs=12)
    assert arm.joints[0] == pytest.approx((2600 - 2047.5) * 2 * np.pi / 4096, abs=0.03)


def test_the_speed_register_limits_the_speed():
    arm = build()
    hold(arm)
    servo = arm.servos[0]
    servo.write(Register.GOAL_VELOCITY.address, (200).to_bytes(2, "little"))
    servo.write(Register.GOAL_POSITION.address, (3000).to_bytes(2, "little"))
    pass_time(arm, 0.0, 1.0)
    began = servo[Register.PRESENT_POSITION]
    pass_time(arm, 1.0, 2.0)
    assert servo[Register.PRESENT_POSITION] - began == pytest.approx(200, abs=15)


def test_a_goal_beyond_the_limit_stops_at_the_limit():
    arm = build()
    hold(arm)
    servo = arm.servos[0]
    servo.write(Register.GOAL_POSITION.address, (4095).to_bytes(2, "little"))
    pass_time(arm, 0.0, 3.0)
    assert servo[Register.PRESENT_POSITION] <= servo[Register.MAX_POSITION] + 2


def test_a_motor_that_carries_weight_says_so():
    arm = build(RAISED)
    hold(arm)
    pass_time(arm, 0.0, 1.0)
    assert abs(arm.servos[1][Register.PRESENT_LOAD]) > 50
    assert arm.servos[1][Register.PRESENT_VOLTAGE] in range(110, 125)


def test_a_calibration_file_comes_back_as_it_was_written(tmp_path):
    entries = calibration.as_drawn()
    calibration.save(tmp_path / "arm.json", entries)
    assert calibration.load(tmp_path / "arm.json") == entries


def test_a_file_that_is_no_calibration_is_refused(tmp_path):
    (tmp_path / "arm.json").write_text(json.dumps({"shoulder_pan": {"id": 1}}))
    with pytest.raises(RobotError, match="no calibration of an SO-101"):
        calibration.load(tmp_path / "arm.json")


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"baud": 9600}, "baud is 9600; motors know 1000000"),
        ({"missing": ["elbow"]}, "the arm has shoulder_pan"),
        ({"start_joints": [0.0]}, "needs 5 angles"),
        ({"camera_fps": 0.0}, "camera_fps positive"),
    ],
)
def test_a_twin_that_cannot_be_is_refused(setting, match):
    with pytest.raises(ConfigError, match=match):
        TwinConfig(**setting)
