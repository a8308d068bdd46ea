"""What is looked at before a motor is switched on: the port, the baud rate, the motors, the calibration.

Drivers are LeRobot's, handed in; nothing here loads LeRobot.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import termios
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from vla.errors import RobotError
from vla.robots.arms import HardwareArm
from vla.robots.config import RobotConfig
from vla.robots.units import JointUnits, find_units

logger = logging.getLogger(__name__)

_RETRIES = 5
_ATTEMPTS = 8  # LeRobot's own start repeats nothing: one damaged packet of two hundred ends it
_COUNTS_PER_TURN = 4096
_LATE_S = 0.03  # a reply that was not waited for is here by then
_PRIORITY = 50  # SCHED_FIFO, below a control loop's

# What a driver raises when its bus or camera fails. pyserial's errors are OSErrors, those of a vanished terminal are
# not; the Feetech SDK stumbles over the index when a late reply is taken for the answer to another question.
DRIVER_ERRORS = (OSError, RuntimeError, ValueError, LookupError, termios.error)


@contextmanager
def hurry() -> Generator[None]:
    """Puts this thread, and those it starts, before ordinary ones where permitted.

    LeRobot gives a reply 50 ms and then drops it; the threads of its cameras share the interpreter's lock with the one
    that waits for it, so they must not be kept waiting either.
    """
    before = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def check_before_motion(robot: Any, config: RobotConfig) -> None:
    """Raises RobotError with the first thing that is wrong; leaves the motors off and their goals where they stand.

    `robot` is a LeRobot driver that is not connected. One without a bus is only asked for its calibration.
    """
    bus = getattr(robot, "bus", None)
    if bus is None or not hasattr(bus, "sync_read"):
        return
    _check_port(config.port)
    if not robot.calibration:
        raise RobotError(
            f"there is no calibration at {robot.calibration_fpath}; run once: lerobot-calibrate "
            f"--robot.type={config.driver} --robot.port={config.port} --robot.id={config.id}"
        )
    try:
        bus.connect(handshake=False)
    except DRIVER_ERRORS as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise RobotError(
            f"the port {config.port} cannot be opened ({reason}); is another program using it, and may you?"
        ) from error
    try:
        _check_motors(bus, config)
        _check_calibration(bus, robot, config)
        _aim_where_it_stands(bus)
    except DRIVER_ERRORS as error:
        raise RobotError(
            f"the bus at {config.port} answers unreliably ({' '.join(str(error).split())}); check cables and power"
        ) from error
    finally:
        with suppress(*DRIVER_ERRORS):
            bus.disconnect(disable_torque=False)


def start(robot: Any) -> None:
    """Connects the driver, which switches the motors on; raises RobotError when it will not, with the motors off."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            robot.connect(calibrate=False)
        except DRIVER_ERRORS as error:
            with suppress(*DRIVER_ERRORS):
                robot.bus.disconnect(disable_torque=True)
            with suppress(*DRIVER_ERRORS):
                robot.disconnect()
            for camera in robot.cameras.values():
                with suppress(*DRIVER_ERRORS):
                    camera.disconnect()
            reason = " ".join(str(error).split())
            if attempt == _ATTEMPTS:
                raise RobotError(f"the driver could not start: {reason}") from error
            logger.info("the driver could not start (%s); trying again", reason)
            time.sleep(_LATE_S)
        else:
            return


def units_of(robot: Any, arm: HardwareArm) -> JointUnits:
    """Returns what the driver's numbers mean; raises RobotError when it moves another arm."""
    bus = getattr(robot, "bus", None)
    if (
        bus is None
    ):  # a driver without a bus: angles in degrees, as LeRobot's newer drivers have them
        modes = {name.removesuffix(".pos"): "degrees" for name in robot.action_features}
        return find_units(arm.limits.names, arm.gripper, {**modes, arm.gripper: "range_0_100"}, {})
    modes = {name: str(motor.norm_mode.value) for name, motor in bus.motors.items()}
    ranges = {
        name: (entry.range_max - entry.range_min) * 2 * math.pi / _COUNTS_PER_TURN
        for name, entry in robot.calibration.items()
    }
    return find_units(arm.limits.names, arm.gripper, modes, ranges)


def _check_port(port: str) -> None:
    if not port:
        raise RobotError(f"no port given; add port=PATH{_ports_here()}")
    if not os.path.exists(port):
        raise RobotError(
            f"there is no port {port}; is the arm plugged in and powered?{_ports_here()}"
        )


def _ports_here() -> str:
    ports = sorted(glob.glob("/dev/ttyACM*") + glob.glob("/dev/ttyUSB*"))
    return f"; ports here: {', '.join(ports)}" if ports else "; no serial port is here"


def _check_motors(bus: Any, config: RobotConfig) -> None:
    found = {name: _ping(bus, name) for name in bus.motors}
    missing = [name for name, model in found.items() if model is None]
    if len(missing) == len(found):
        raise RobotError(_why_silent(bus, config))
    if missing:
        named = ", ".join(f"{name} (id {bus.motors[name].id})" for name in missing)
        raise RobotError(
            f"motors at {config.port} do not answer: {named}; check the cable before the first of them and its id"
        )
    foreign = [name for name, model in found.items() if model != _model_number(bus, name)]
    if foreign:
        named = ", ".join(f"{name} is model {found[name]}" for name in foreign)
        raise RobotError(f"motors at {config.port} are of another kind: {named}")


def _ping(bus: Any, name: str) -> int | None:
    for _ in range(_RETRIES):
        with suppress(LookupError):
            model = bus.ping(name)
            if model is not None:
                return model
        time.sleep(_LATE_S)
        bus.port_handler.ser.reset_input_buffer()  # else a late reply answers the next question
    return None


def _model_number(bus: Any, name: str) -> int:
    return bus.model_number_table[bus.motors[name].model]


def _why_silent(bus: Any, config: RobotConfig) -> str:
    """Returns why no motor answers, after listening at the other speeds."""
    own, first = bus.get_baudrate(), next(iter(bus.motors))
    for speed in reversed(bus.available_baudrates):
        bus.set_baudrate(speed)
        if speed != own and _ping(bus, first) is not None:
            return (
                f"the motors at {config.port} are set to {speed} baud, the driver speaks {own}; "
                f"set them up again: lerobot-setup-motors --robot.type={config.driver} --robot.port={config.port}"
            )
    return f"no motor answers at {config.port} at any speed; is the arm's power supply on?"


def _check_calibration(bus: Any, robot: Any, config: RobotConfig) -> None:
    stored = _insistently(bus.read_calibration)
    file = robot.calibration
    differing = [
        name
        for name, entry in stored.items()
        if name not in file or _numbers(entry) != _numbers(file[name])
    ]
    if differing:
        name = differing[0]
        expected = _numbers(file[name]) if name in file else "nothing"
        raise RobotError(
            f"the calibration in the motors differs from {robot.calibration_fpath}: {name} has (homing offset, "
            f"range) {_numbers(stored[name])}, the file {expected}; give the robot.id of this arm, or run "
            f"lerobot-calibrate --robot.type={config.driver} --robot.port={config.port} --robot.id={config.id}"
        )


def _numbers(entry: Any) -> tuple[int, int, int]:
    return entry.homing_offset, entry.range_min, entry.range_max


def _aim_where_it_stands(bus: Any) -> None:
    """Makes the present position the goal: a motor that is switched on runs to its goal, whatever that was."""
    for name in bus.motors:
        position = bus.read("Present_Position", name, normalize=False, num_retry=_RETRIES)
        bus.write("Goal_Position", name, position, normalize=False, num_retry=_RETRIES)


def _insistently(read: Callable[[], Any]) -> Any:
    """Returns what `read` returns; a damaged packet costs another try."""
    for _ in range(_RETRIES):
        with suppress(ConnectionError, LookupError):
            return read()
        time.sleep(_LATE_S)
    return read()
