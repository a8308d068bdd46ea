"""Arms that LeRobot's drivers can move for us: their model, and the poses to begin and to end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vla.control.limits import SO101, JointLimits
from vla.errors import ConfigError, unknown_name
from vla.robots import so101


@dataclass(frozen=True, kw_only=True)
class HardwareArm:
    """What has to be known of an arm apart from its driver.

    Attributes:
        limits: of the joints; their names are the driver's.
        gripper: the driver's name of the gripper.
        ready, parked: rad, where a run begins, and where the arm may be left without torque.
        tool_site: in the model, at the tool centre.
        open_grip_width_m: between the fingers of the open gripper.
        build_model: returns the mujoco.MjModel.
    """

    limits: JointLimits
    gripper: str
    ready: tuple[float, ...]
    parked: tuple[float, ...]
    tool_site: str
    open_grip_width_m: float
    build_model: Callable[[], Any]


HARDWARE_ARMS: dict[str, HardwareArm] = {
    "so101": HardwareArm(
        limits=SO101,
        gripper=so101.GRIPPER_JOINT,
        ready=so101.READY_JOINTS,
        parked=so101.PARKED_JOINTS,
        tool_site=so101.TOOL_SITE,
        open_grip_width_m=so101.OPEN_GRIP_WIDTH_M,
        build_model=so101.build_model,
    )
}


def hardware_arm(name: str) -> HardwareArm:
    """Returns the arm called `name`; raises ConfigError naming the choices."""
    if name not in HARDWARE_ARMS:
        raise ConfigError(unknown_name("arm with a driver", name, HARDWARE_ARMS))
    return HARDWARE_ARMS[name]
