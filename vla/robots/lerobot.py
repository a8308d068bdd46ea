"""Any arm that LeRobot has a driver for, through that driver as it is.

This is the one file of the robot's side that loads LeRobot, and with it torch; `vla deploy` gives it a process of its
own (vla.robots.driver).
"""

# pyright: reportMissingTypeStubs=false
# LeRobot ships no types.

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.rotation import Vector
from vla.errors import RobotError
from vla.robots.arms import HardwareArm, hardware_arm
from vla.robots.camera_watch import CameraWatch
from vla.robots.cameras import CameraAddress, parse_camera
from vla.robots.config import RobotConfig
from vla.robots.lerobot_checks import DRIVER_ERRORS, check_before_motion, hurry, start, units_of
from vla.robots.units import JointUnits
from vla.types import END_EFFECTOR_DELTA_7D, ActionSpec, ImageArray, Observation

logger = logging.getLogger(__name__)

_SILENT_S = 0.3  # without a reading for this long the bus is named
_REOPEN_EVERY_S = 1.0
_LATE_S = 0.01  # a reply that was not waited for is here by then
_VELOCITY_OVER_S = 0.05  # measured over this long: one encoder count per 20 ms would be 0.08 rad/s
_LONGEST_WAIT_FOR_BUS_S = 5.0  # before parking is given up
_LARGEST_EXCESS_RAD = 0.5  # beyond its range; more than a loose calibration explains
_FASTEST_RAD_S = 12.0  # no servo of this kind turns faster
_DEFAULT_HZ = 50.0


@dataclass(frozen=True)
class Reading:
    """What the arm measured: (joints,) rad and rad/s, opening (1 open), time.monotonic, and a count."""

    joints: Vector
    velocity: Vector
    gripper: float
    measured_at_s: float
    number: int


class LeRobotArm:
    """One arm and its cameras (vla.types.Robot). Targets are (joints + 1,): rad, then the gripper's opening.

    A thread owns the driver: it sends the newest target as soon as it is there and reads the joints after it, at least
    once per period. A silent bus blocks a read for 161 ms and swallows writes without a word, so what is asked from
    outside never waits for it: the newest reading has its time, and `fault` names what is wrong.

    Attributes:
        is_parked: whether `close` left the arm in its rest pose.
    """

    action_spec: ActionSpec = END_EFFECTOR_DELTA_7D

    def __init__(self, config: RobotConfig) -> None:
        """Takes note of the settings; nothing is opened before `connect`."""
        self._config = config
        self._arm: HardwareArm = hardware_arm(config.arm)
        self._period_s = 1 / (config.servo_hz or _DEFAULT_HZ)
        self._addresses = [parse_camera(text) for text in config.cameras]
        self.camera_names = tuple(address.name for address in self._addresses)
        self._robot: Any = None
        self._units: JointUnits | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._target: Vector | None = None
        self._reading: Reading | None = None
        self._history: deque[tuple[float, Vector]] = deque(maxlen=16)
        self._cameras = CameraWatch(1e-3 * config.max_frame_age_ms)
        self._trouble = ""  # what the bus said last
        self._has_lost_torque = False
        self._is_after_silence = False
        self._reopened_at_s = 0.0
        self.is_parked = False

    # ---- vla.types.Robot -------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Opens the driver, holds the arm where it is and moves it slowly to the ready pose.

        Raises:
            RobotError: the port, a motor, its baud rate, the calibration or a camera is not as it should be. In each
                of these cases no motor was switched on.
        """
        robot = _build_driver(self._config, self._addresses)
        with hurry():
            check_before_motion(robot, self._config)
            self._units = units_of(robot, self._arm)
            self._switch_on(robot)
        self._robot = robot
        self._thread = threading.Thread(target=self._run, name="servo bus", daemon=True)
        self._thread.start()
        self._await(lambda: self._reading is not None, _LONGEST_WAIT_FOR_BUS_S)
        if self._reading is None:
            raise RobotError(f"the arm gave no reading: {self._trouble}")
        self._get_ready(self._reading)

    def observe(self) -> Observation:
        """Returns the newest pictures and (joints + 1,) rad and opening, stamped with the oldest of their times."""
        reading = self.reading()
        frames = self.frames()
        stamps = [reading.measured_at_s, *(captured for _, captured in frames.values())]
        return Observation(
            images={name: image for name, (image, _) in frames.items()},
            state=np.append(reading.joints, reading.gripper).astype(np.float32),
            instruction="",
            captured_at_s=min(stamps),
        )

    def command(self, target: NDArray[Any]) -> None:
        """Passes a target on and returns at once; raises RobotError when it is not finite or of another width."""
        width = self._arm.limits.num_joints + 1
        if np.shape(target) != (width,) or not np.isfinite(target).all():
            raise RobotError(f"a target is {width} finite numbers; got {np.asarray(target)!r}")
        limits = self._arm.limits
        joints = np.clip(target[:-1], limits.low, limits.high)
        self._target = np.append(joints, min(1.0, max(0.0, float(target[-1]))))
        self._wake.set()

    def hold(self) -> None:
        """Keeps the last target: the motors hold it by themselves."""

    def close(self) -> None:
        """Parks the arm slowly, switches its motors off and frees the port; a second call does nothing."""
        if self._robot is None:
            return
        try:
            self._await(lambda: not self._bus_fault(), _LONGEST_WAIT_FOR_BUS_S)
            if self._bus_fault():
                logger.error(
                    "the arm could not be parked and its motors stay as they are: %s",
                    self._bus_fault(),
                )
            elif not self._has_lost_torque:
                self.move_slowly(self._arm.parked, gripper=0.0)
                self.is_parked = not self._bus_fault()
        finally:
            self._disconnect()

    # ---- for whoever drives ----------------------------------------------------------------------------------------

    def reading(self) -> Reading:
        """Returns the newest measurement; raises RobotError before `connect`."""
        if self._reading is None:
            raise RobotError("the arm is not connected; call connect() first")
        return self._reading

    def frames(self) -> dict[str, tuple[ImageArray, float]]:
        """Returns the newest picture of each camera and when it was captured."""
        return self._cameras.frames()

    @property
    def fault(self) -> str:
        """What is wrong now, in words; empty when nothing is."""
        if self._has_lost_torque:
            return "motors lost their power and hold nothing; check the arm, then start again"
        return self._bus_fault() or self._cameras.fault

    def move_slowly(self, joints: tuple[float, ...], gripper: float) -> None:
        """Moves to `joints` (rad) at `approach_speed_rad_s` with smooth ends, and waits until it is there."""
        begin = np.append(self.reading().joints, self.reading().gripper)
        end = np.array([*joints, gripper])
        way = float(np.abs(end[:-1] - begin[:-1]).max())
        seconds = max(0.5, 1.875 * way / self._config.approach_speed_rad_s)
        began_s = time.monotonic()
        while (share := (time.monotonic() - began_s) / seconds) < 1.0:
            smooth = share**3 * (10 - 15 * share + 6 * share**2)  # minimum jerk; steepest 1.875
            self.command(begin + smooth * (end - begin))
            time.sleep(self._period_s)
        self.command(end)
        time.sleep(_SILENT_S)

    def _switch_on(self, robot: Any) -> None:
        start(robot)

    def _get_ready(self, reading: Reading) -> None:
        self.move_slowly(self._arm.ready, gripper=reading.gripper)

    # ---- the thread that owns the driver ---------------------------------------------------------------------------

    def _run(self) -> None:
        with hurry():
            while not self._stop.is_set():
                self._wake.wait(self._period_s)
                self._wake.clear()
                try:
                    self._exchange()
                except DRIVER_ERRORS as error:
                    self._trouble = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    self._is_after_silence = True
                    self._reopen_if_gone(error)
                    time.sleep(_LATE_S)
                    self._forget_late_replies()
                self._cameras.look(self._robot.cameras)

    def _exchange(self) -> None:
        target, units = self._target, self._units
        assert units is not None
        if target is not None and not self._has_lost_torque:
            self._robot.send_action(units.to_driver(target))
        measured = units.from_driver(self._read_joints())
        now_s = time.monotonic()
        self._check_plausible(measured[:-1], now_s)
        if self._is_after_silence:
            self._is_after_silence = False
            self._check_torque()
        joints = measured[:-1]
        while len(self._history) > 1 and now_s - self._history[1][0] >= _VELOCITY_OVER_S:
            self._history.popleft()
        then_s, before = self._history[0] if self._history else (now_s - 1.0, joints)
        self._history.append((now_s, joints))
        number = 0 if self._reading is None else self._reading.number + 1
        velocity = (joints - before) / (now_s - then_s)
        self._reading = Reading(joints, velocity, float(np.clip(measured[-1], 0, 1)), now_s, number)

    def _read_joints(self) -> dict[str, float]:
        """Reads the motors alone where the driver has a bus: a camera that hangs must not hide the arm."""
        bus = getattr(self._robot, "bus", None)
        if bus is not None and hasattr(bus, "sync_read"):
            retries = getattr(self._robot.config, "num_read_retries", 2)
            return bus.sync_read("Present_Position", num_retry=retries)
        observation = self._robot.get_observation()
        return {name: value for name, value in observation.items() if name.endswith(".pos")}

    def _check_plausible(self, joints: Vector, now_s: float) -> None:
        """Raises ValueError for a reading that no arm can give: a reply that was meant for another question."""
        limits, last = self._arm.limits, self._reading
        beyond = np.maximum(np.asarray(limits.low) - joints, joints - np.asarray(limits.high))
        if beyond.max() > _LARGEST_EXCESS_RAD:
            name = limits.names[int(np.argmax(beyond))]
            raise ValueError(
                f"{name} reads {joints[int(np.argmax(beyond))]:.2f} rad, far beyond its range"
            )
        if last is not None and now_s - last.measured_at_s < _SILENT_S:
            bound = _FASTEST_RAD_S * max(now_s - last.measured_at_s, self._period_s)
            if np.abs(joints - last.joints).max() > bound:
                raise ValueError("a joint's reading jumped")

    def _forget_late_replies(self) -> None:
        """After a failure: a late reply would be taken for the answer to the next question."""
        handler = getattr(getattr(self._robot, "bus", None), "port_handler", None)
        port = getattr(handler, "ser", None)
        if handler is not None and port is not None:
            handler.is_using = False
            with suppress(*DRIVER_ERRORS):
                port.reset_input_buffer()

    def _check_torque(self) -> None:
        """After a silence: motors that lost power hold nothing, and are not switched on again behind anybody's back."""
        bus = getattr(self._robot, "bus", None)
        if bus is None or not hasattr(bus, "sync_read"):
            return
        self._forget_late_replies()
        try:
            enabled = bus.sync_read("Torque_Enable", normalize=False, num_retry=5)
        except DRIVER_ERRORS:
            self._is_after_silence = True
            raise
        finally:
            self._forget_late_replies()
        self._has_lost_torque = any(value == 0 for value in enabled.values())

    def _reopen_if_gone(self, error: Exception) -> None:
        """Opens the port again when it was unplugged and is back."""
        now_s, bus = time.monotonic(), getattr(self._robot, "bus", None)
        is_silence = isinstance(error, ConnectionError) and "status packet" in str(error)
        if bus is None or is_silence or now_s - self._reopened_at_s < _REOPEN_EVERY_S:
            return
        self._reopened_at_s = now_s
        with suppress(*DRIVER_ERRORS):
            bus.port_handler.is_using = False
            bus.port_handler.closePort()
        if os.path.exists(self._config.port):
            with suppress(*DRIVER_ERRORS):
                bus.connect()

    # ---- what is wrong ---------------------------------------------------------------------------------------------

    def _bus_fault(self) -> str:
        if self._reading is None:
            return "the arm has not been read yet"
        silent_s = time.monotonic() - self._reading.measured_at_s
        if silent_s < _SILENT_S:
            return ""
        return f"the bus at {self._config.port} has not answered for {silent_s:.1f} s ({self._trouble})"

    def _await(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _disconnect(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5.0)
        robot, self._robot = self._robot, None
        try:
            robot.disconnect()
        except DRIVER_ERRORS as error:
            logger.error("the driver did not end cleanly: %s", " ".join(str(error).split()))
            with suppress(*DRIVER_ERRORS):
                robot.bus.disconnect(disable_torque=False)


def _build_driver(config: RobotConfig, addresses: list[CameraAddress]) -> Any:
    """Returns LeRobot's driver for `config`, not connected; raises RobotError when there is none of that name."""
    try:
        from lerobot.robots import RobotConfig as DriverConfig
        from lerobot.robots import make_robot_from_config
        from lerobot.robots.so_follower import SO101FollowerConfig
        from lerobot.utils.import_utils import register_third_party_plugins
    except ImportError as error:
        raise RobotError(
            f"drivers of real arms are not installed ({error}); pip install 'vla[hardware]'"
        ) from error
    registry: Any = DriverConfig
    assert SO101FollowerConfig in registry.get_known_choices().values()  # its import registers it
    if config.driver not in registry.get_known_choices():
        _load_all_drivers()
        register_third_party_plugins()
    choices = registry.get_known_choices()
    if config.driver not in choices:
        raise RobotError(
            f"LeRobot has no driver {config.driver!r}; it has {', '.join(sorted(choices))}"
        )
    arguments: dict[str, Any] = {"id": config.id, "cameras": dict(map(_camera, addresses))}
    arguments["calibration_dir"] = Path(config.calibration_dir) if config.calibration_dir else None
    try:
        return make_robot_from_config(choices[config.driver](port=config.port, **arguments))
    except (TypeError, ImportError, ValueError) as error:
        raise RobotError(f"the driver {config.driver} cannot be made: {error}") from error


def _load_all_drivers() -> None:
    """Loads every driver that ships with LeRobot and whose own packages are here, so that it is known by name."""
    import importlib
    import pkgutil

    import lerobot.robots

    for module in pkgutil.iter_modules(lerobot.robots.__path__, "lerobot.robots."):
        if module.ispkg:
            with suppress(ImportError):
                importlib.import_module(module.name)


def _camera(address: CameraAddress) -> tuple[str, Any]:
    """Returns the name and LeRobot's configuration of a camera."""
    common: dict[str, Any] = {"width": address.width, "height": address.height, "fps": address.fps}
    if address.kind == "zmq":
        from lerobot.cameras.zmq import ZMQCameraConfig

        return address.name, ZMQCameraConfig(
            server_address=address.host,
            port=address.port,
            camera_name=address.remote_name,
            **common,
        )
    from lerobot.cameras.opencv import OpenCVCameraConfig

    device = int(address.device) if address.device.isdigit() else Path(address.device)
    return address.name, OpenCVCameraConfig(index_or_path=device, **common)
