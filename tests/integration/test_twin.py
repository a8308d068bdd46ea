"""LeRobot's own drivers on the twin's port: they must not notice."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla.errors import RobotError
from vla.robots import so101
from vla.robots.config import RobotConfig, RobotKind
from vla.robots.twin import calibration
from vla.robots.twin.bus import LineFaults
from vla.robots.twin.process import TwinProcess
from vla.robots.twin.so101_twin import TwinConfig

pytest.importorskip("scservo_sdk", reason="the hardware extra is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # what LeRobot and its packages warn of is theirs

READY_DEGREES = dict(zip(so101.ARM_JOINTS, np.degrees(so101.READY_JOINTS), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    calibration.save(tmp_path / "twin.json", calibration.as_drawn())
    return tmp_path


@contextmanager
def twin(**settings: Any) -> Iterator[TwinProcess]:
    settings = {"cameras": [], "camera_port": 0, **settings}
    with TwinProcess(calibration.as_drawn(), TwinConfig(**settings)) as process:
        yield process


@contextmanager
def lerobot_bus(path: str) -> Iterator[Any]:
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    modes = dict.fromkeys(so101.ARM_JOINTS, MotorNormMode.DEGREES)
    modes[so101.GRIPPER_JOINT] = MotorNormMode.RANGE_0_100
    bus = FeetechMotorsBus(
        path,
        {name: Motor(n, "sts3215", modes[name]) for n, name in enumerate(so101.MOTORS, start=1)},
        {name: MotorCalibration(**vars(e)) for name, e in calibration.as_drawn().items()},
    )
    try:
        yield bus
    finally:
        if bus.is_connected:
            bus.disconnect(disable_torque=False)


def settings(process_path: str, folder: Path, **more: Any) -> RobotConfig:
    return RobotConfig(
        kind=RobotKind.LEROBOT,
        arm="so101",
        driver="so101_follower",
        port=process_path,
        id=more.pop("id", "twin"),
        calibration_dir=str(folder),
        servo_hz=50,
        approach_speed_rad_s=1.5,
        **more,
    )


def wait_for(condition: Any, seconds: float) -> float:
    """Returns after how many seconds the condition held; fails when it never did."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.005)
    return time.monotonic() - began


def test_lerobots_bus_finds_the_motors_and_their_calibration():
    with twin() as arm, lerobot_bus(arm.path) as bus:
        bus.connect()  # pings every motor and compares models and firmware
        assert bus.is_calibrated
        assert bus.broadcast_ping() == dict.fromkeys(range(1, 7), 777)
        positions = bus.sync_read("Present_Position")
        measured = [positions[name] for name in so101.ARM_JOINTS]
        np.testing.assert_allclose(measured, np.degrees(so101.PARKED_JOINTS), atol=4.0)
        assert positions["gripper"] == pytest.approx(0.0, abs=1.0)


def test_lerobots_bus_moves_the_arm_and_lets_it_drop():
    with twin() as arm, lerobot_bus(arm.path) as bus:
        bus.connect()
        bus.configure_motors()
        bus.enable_torque()
        bus.sync_write("Goal_Position", {**READY_DEGREES, "gripper": 60.0})
        time.sleep(1.5)
        raised = arm.state()
        np.testing.assert_allclose(raised.joints[:5], so101.READY_JOINTS, atol=0.1)
        assert bus.sync_read("Present_Position")["gripper"] == pytest.approx(60.0, abs=3.0)
        bus.disable_torque(num_retry=5)
        time.sleep(1.5)
        assert arm.state().tool_position[2] < raised.tool_position[2] - 0.05


def test_one_packet_in_fifty_damaged_costs_retries_and_no_failure():
    with twin(faults=LineFaults(corrupt_every=50)) as arm, lerobot_bus(arm.path) as bus:
        bus.connect()
        bus.sync_write("Goal_Position", bus.sync_read("Present_Position"))
        for _ in range(200):
            bus.sync_read("Present_Position", num_retry=4)
        counts = arm.state().counts
    assert counts["damaged"] > 5
    assert counts["sync_reads"] > 200


class TestBeforeMotion:
    """Whatever is wrong is one line, and no motor was switched on."""

    def refuses(self, arm: TwinProcess, config: RobotConfig, match: str) -> None:
        from vla.robots.lerobot import LeRobotArm

        with pytest.raises(RobotError, match=match) as refusal:
            LeRobotArm(config).connect()
        assert "\n" not in str(refusal.value)
        assert not any(arm.state().is_enabled)

    def test_motors_of_another_speed_are_named(self, folder):
        with twin(baud=115_200) as arm:
            self.refuses(arm, settings(arm.path, folder), "set to 115200 baud, the driver speaks")

    def test_a_motor_that_is_missing_is_named(self, folder):
        with twin(missing=["wrist_flex"]) as arm:
            self.refuses(arm, settings(arm.path, folder), r"do not answer: wrist_flex \(id 4\)")

    def test_a_missing_calibration_is_named_with_the_command_that_makes_it(self, folder):
        with twin() as arm:
            config = settings(arm.path, folder, id="other")
            self.refuses(arm, config, r"no calibration at .*other\.json; run once: lerobot-calib")

    def test_a_calibration_of_another_arm_is_refused_without_a_question(self, folder):
        foreign = calibration.as_drawn()
        entry = foreign["elbow_flex"]
        foreign["elbow_flex"] = type(entry)(**{**vars(entry), "homing_offset": 400})
        calibration.save(folder / "foreign.json", foreign)
        with twin() as arm:
            config = settings(arm.path, folder, id="foreign")
            self.refuses(arm, config, "differs from .*foreign.json: elbow_flex")

    def test_a_port_that_is_not_there_is_named(self, folder):
        from vla.robots.lerobot import LeRobotArm

        with pytest.raises(RobotError, match="there is no port /dev/nothing; is the arm plugged"):
            LeRobotArm(settings("/dev/nothing", folder)).connect()

    def test_a_driver_that_lerobot_does_not_have_is_named_with_the_choices(self, folder):
        from vla.robots.lerobot import LeRobotArm

        config = settings("/dev/nothing", folder)
        config.driver = "so102"
        with pytest.raises(RobotError, match=r"no driver 'so102'; it has .*so101_follower"):
            LeRobotArm(config).connect()


@pytest.mark.slow
def test_an_arm_is_brought_up_watched_and_parked(folder):
    from vla.robots.lerobot import LeRobotArm

    faults = LineFaults(corrupt_every=50, dies_at_s=10.0, dies_for_s=2.0)
    with twin(faults=faults, cameras=["front", "wrist"]) as process:
        address = f"zmq://127.0.0.1:{process.camera_port}"
        cameras = [f"{n}={address}/{n}?width=224&height=224&fps=10" for n in ("front", "wrist")]
        arm = LeRobotArm(settings(process.path, folder, cameras=cameras, max_frame_age_ms=900))
        arm.connect()
        began = time.monotonic()
        np.testing.assert_allclose(process.state().joints[:5], so101.READY_JOINTS, atol=0.1)
        seen = arm.observe()
        assert {name: image.shape for name, image in seen.images.items()} == {
            "front": (224, 224, 3),
            "wrist": (224, 224, 3),
        }
        red, _, blue = seen.images["front"].reshape(-1, 3).mean(axis=0)
        assert red > blue + 10  # the table is brown; with swapped channels it would be blue
        np.testing.assert_allclose(seen.state[:5], so101.READY_JOINTS, atol=0.1)
        assert time.monotonic() - seen.captured_at_s < 2.0

        wait_for(lambda: "the bus at" in arm.fault, 15.0)  # it dies, and is named ...
        silent_s = time.monotonic() - arm.reading().measured_at_s
        assert silent_s < 1.0
        wait_for(lambda: "the bus at" not in arm.fault, 5.0)  # ... and comes back
        assert time.monotonic() - began < 20.0

        process.freeze_cameras()
        named_after_s = wait_for(lambda: "shown the same picture" in arm.fault, 3.0)
        assert named_after_s < 2.0  # 0.9 s and what a busy machine adds
        arm.close()
        parked = process.state()
        assert not any(parked.is_enabled)
        time.sleep(1.0)
        assert np.linalg.norm(process.state().tool_position - parked.tool_position) < 0.03


@pytest.mark.slow
def test_an_arm_that_is_unplugged_is_named(folder):
    from vla.robots.lerobot import LeRobotArm

    with twin() as process:
        arm = LeRobotArm(settings(process.path, folder))
        arm.connect()
        process.unplug()
        assert wait_for(lambda: "has not answered" in arm.fault, 3.0) < 2.0
        arm.close()


@pytest.mark.slow
def test_motors_that_lost_their_power_are_not_switched_on_again(folder):
    from vla.robots.lerobot import LeRobotArm

    faults = LineFaults(dies_at_s=4.0, dies_for_s=1.0, loses_power=True)
    with twin(faults=faults) as process:
        arm = LeRobotArm(settings(process.path, folder))
        arm.connect()
        wait_for(lambda: "lost their power" in arm.fault, 15.0)
        arm.command(np.array([*so101.READY_JOINTS, 0.5]))
        time.sleep(0.3)
        assert not any(process.state().is_enabled)
        arm.close()
