"""Between our joints (rad, opening from 0 to 1) and a driver's numbers, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla.control.rotation import Vector
from vla.errors import RobotError

_SUFFIX = ".pos"


@dataclass(frozen=True)
class JointUnits:
    """The driver's number is ours times `per_unit`; the gripper is 100 when open, 0 when closed.

    Attributes:
        joints: names, in our order.
        gripper: its name.
        per_unit: (joints,) driver's units per rad.
    """

    joints: tuple[str, ...]
    gripper: str
    per_unit: tuple[float, ...]

    def to_driver(self, target: Vector) -> dict[str, float]:
        """Returns the driver's action for (joints + 1,): rad, then the gripper's opening."""
        numbers = {
            f"{name}{_SUFFIX}": float(value) * scale
            for name, value, scale in zip(self.joints, target[:-1], self.per_unit, strict=True)
        }
        return {**numbers, f"{self.gripper}{_SUFFIX}": 100.0 * float(target[-1])}

    def from_driver(self, reading: Mapping[str, float]) -> Vector:
        """Returns (joints + 1,) for a reading by motor name, with or without ".pos"."""
        numbers = {name.removesuffix(_SUFFIX): float(value) for name, value in reading.items()}
        joints = [
            numbers[name] / scale for name, scale in zip(self.joints, self.per_unit, strict=True)
        ]
        return np.array([*joints, numbers[self.gripper] / 100.0])


def find_units(
    joints: Sequence[str],
    gripper: str,
    modes: Mapping[str, str],
    ranges: Mapping[str, float],
) -> JointUnits:
    """Returns the units of a driver.

    Args:
        joints, gripper: the names that must be there.
        modes: by motor, what its numbers mean: `degrees`, `range_m100_100` or `range_0_100` as LeRobot calls them.
        ranges: rad, by motor, the calibrated range.

    Raises:
        RobotError: a motor is not there, or has a unit that says nothing of angles.
    """
    missing = [name for name in (*joints, gripper) if name not in modes]
    if missing:
        raise RobotError(
            f"the driver has no motor {', '.join(missing)}; it has {', '.join(modes)}: "
            "give the arm (robot.arm) that this driver moves"
        )
    if modes[gripper] != "range_0_100":
        raise RobotError(
            f"the driver gives {gripper} as {modes[gripper]}; expected range_0_100, 0 closed and 100 open"
        )
    return JointUnits(
        tuple(joints), gripper, tuple(_per_rad(name, modes[name], ranges) for name in joints)
    )


def _per_rad(name: str, mode: str, ranges: Mapping[str, float]) -> float:
    match mode:
        case "degrees":
            return 180.0 / math.pi
        case "range_m100_100":
            return 200.0 / ranges[name]
        case _:
            raise RobotError(
                f"the driver gives {name} as {mode}; expected degrees or range_m100_100"
            )
