"""A real arm that is only looked at: its motors stay as they are, on or off."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from vla.errors import RobotError
from vla.robots.lerobot import LeRobotArm, Reading
from vla.robots.lerobot_checks import DRIVER_ERRORS

_ATTEMPTS = 3  # the driver's own greeting repeats nothing: one damaged packet ends it


class LookOnlyArm(LeRobotArm):
    """Reads joints and cameras; switches nothing on or off, moves nothing and parks nothing.

    The checks before motion are made as for a drive. The only thing they write is each motor's present position as its
    goal, so that a motor that is on stays where it is.
    """

    def command(self, target: NDArray[Any]) -> None:
        """Does nothing."""

    def move_slowly(self, joints: tuple[float, ...], gripper: float) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Frees the port and the cameras; a second call does nothing."""
        if self._robot is not None:
            self._disconnect()

    def _switch_on(self, robot: Any) -> None:
        """Opens the bus and the cameras without configuring a motor."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _open(robot)
            except DRIVER_ERRORS as error:
                self._free(robot)
                if attempt == _ATTEMPTS:
                    reason = " ".join(str(error.__cause__ or error).split())
                    raise RobotError(f"the driver could not start: {reason}") from error
            else:
                return

    def _get_ready(self, reading: Reading) -> None:
        """Stays where it is."""

    def _check_torque(self) -> None:
        """Motors without power are nothing to be surprised at."""

    def _disconnect(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5.0)
        robot, self._robot = self._robot, None
        self._free(robot)

    @staticmethod
    def _free(robot: Any) -> None:
        with suppress(*DRIVER_ERRORS):
            robot.bus.disconnect(disable_torque=False)
        for camera in robot.cameras.values():
            with suppress(*DRIVER_ERRORS):
                camera.disconnect()


def _open(robot: Any) -> None:
    bus = getattr(robot, "bus", None)
    if bus is None:
        robot.connect(calibrate=False)
        return
    bus.connect()
    for camera in robot.cameras.values():
        camera.connect()
