"""The channels between the control process and a driver, with an arm that needs no bus."""

import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from vla.control.messages import SharedLinks
from vla.errors import RobotError
from vla.robots.arms import hardware_arm
from vla.robots.camera_watch import CameraWatch
from vla.robots.cameras import parse_camera
from vla.robots.driver import ArmLinks, DrivenArm, serve

SO101 = hardware_arm("so101")
READY = np.array(SO101.ready)


@dataclass
class FakeReading:
    joints: np.ndarray
    number: int
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(5))
    gripper: float = 0.5
    measured_at_s: float = 7.0


@dataclass
class FakeArm:
    """Stands at once where it is told to; ends the service after some rounds."""

    fault: str = ""
    joints: np.ndarray = field(default_factory=READY.copy)
    image: np.ndarray = field(default_factory=lambda: np.full((4, 6, 3), 9, np.uint8))
    is_closed: bool = False
    rounds: int = 0
    targets: list = field(default_factory=list)

    def reading(self):
        self.rounds += 1
        return FakeReading(self.joints, self.rounds)

    def frames(self):
        return {"front": (self.image, 3.0)}

    def command(self, target):
        self.targets.append(target.copy())
        self.joints = target[:-1].copy()

    def close(self):
        self.is_closed = True


@pytest.fixture
def links():
    links = ArmLinks(5, [parse_camera("front=zmq://127.0.0.1:1/front?width=6&height=4&fps=5")])
    yield links
    links.unlink()


def drive(arm, links, rounds=5, **more):
    answers = {"is_stopping": lambda: False, "report": lambda fault: None, **more}
    serve(arm, links, is_abandoned=lambda: arm.rounds >= rounds, **answers)


def build(links) -> DrivenArm:
    return DrivenArm(SO101, links, margin_rad=0.02, is_abandoned=lambda: False, start_timeout_s=0.5)


def test_a_reading_of_the_driver_arrives_in_the_control_loop(links):
    arm = FakeArm()
    drive(arm, links)
    robot = build(links)
    kinematics = robot.begin(None)
    state = robot.read(8.0)
    np.testing.assert_array_equal(state.joints, READY)
    assert (state.gripper, state.measured_at_s, state.fault) == (0.5, 7.0, "")
    assert kinematics.pose(READY).position[2] == pytest.approx(0.115, abs=0.01)


def test_a_target_of_the_control_loop_arrives_at_the_arm(links):
    arm, robot = FakeArm(), build(links)
    target = np.array([*(READY + 0.1), 0.75])
    robot.command(target)
    drive(arm, links)
    np.testing.assert_array_equal(arm.targets[-1], target)


def test_what_is_wrong_with_the_arm_arrives_in_words(links):
    arm, reports = FakeArm(fault="the bus at /dev/x has not answered for 0.4 s"), []
    drive(arm, links, report=reports.append)
    robot = build(links)
    robot.begin(None)
    assert robot.read(0.0).fault == arm.fault
    assert reports == [arm.fault]


def test_pictures_arrive_with_the_time_of_their_capture(links):
    drive(FakeArm(), links)
    message = links.frames.channel.read_new()
    assert (message["front"] == 9).all()
    assert message.number("front_captured_at_s") == 3.0


def test_a_picture_of_another_size_is_refused_with_both_sizes(links):
    arm = FakeArm(image=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RobotError, match=r"gives pictures of 8 x 8; .* says 6 x 4"):
        drive(arm, links)
    assert arm.is_closed


def test_closing_the_robot_parks_the_arm(links):
    robot, arm = build(links), FakeArm()
    drive(FakeArm(), links)
    robot.begin(None)
    robot.close()
    drive(arm, links, rounds=10**9)
    assert arm.is_closed
    assert arm.rounds == 0


def test_an_arm_whose_control_process_is_gone_is_parked_after_everybody_was_stopped(
    links, monkeypatch
):
    monkeypatch.setattr("vla.robots.driver._LONGEST_SILENCE_S", 0.05)
    arm = FakeArm()
    began = time.monotonic()
    drive(arm, links, rounds=10**9, is_stopping=lambda: True)
    assert arm.is_closed
    assert time.monotonic() - began < 5.0


def test_a_driver_that_does_not_get_ready_is_an_error(links):
    with pytest.raises(RobotError, match=r"not ready within 0\.5 s; give start_timeout_s"):
        build(links).begin(None)


def test_the_links_are_those_of_every_drive(links):
    assert isinstance(links, SharedLinks)
    assert set(links.links.snapshots.layout) >= {"joints", "gripper", "measured_at_s", "episode"}


class FakeCamera:
    def __init__(self, image):
        self.image = image

    def read_latest(self):
        if self.image is None:
            raise TimeoutError("latest frame is too old: 1200 ms")
        return self.image


def test_a_camera_that_repeats_the_same_bytes_is_named_and_one_that_moves_is_not():
    watch, rng = CameraWatch(longest_still_s=0.05), np.random.default_rng(0)
    alive, frozen = FakeCamera(None), FakeCamera(np.ones((4, 4, 3), np.uint8))
    for _ in range(8):
        alive.image = rng.integers(0, 255, (4, 4, 3), np.uint8)
        frozen.image = frozen.image.copy()  # a new frame with the old bytes
        watch.look({"alive": alive, "frozen": frozen})
        time.sleep(0.01)
    assert watch.fault.startswith("camera 'frozen' has shown the same picture for 0.1 s")


def test_a_camera_that_gives_nothing_is_named_with_its_reason():
    watch, camera = CameraWatch(longest_still_s=0.02), FakeCamera(np.ones((4, 4, 3), np.uint8))
    watch.look({"front": camera})
    camera.image = None
    time.sleep(0.03)
    watch.look({"front": camera})
    assert "latest frame is too old" in watch.fault
