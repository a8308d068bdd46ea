"""Tool poses, and turns as matrices, rotation vectors (axis times angle) and roll, pitch, yaw; in rad."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_SMALL_RAD = 1e-9


@dataclass(frozen=True)
class Pose:
    """Where the tool centre is in the base frame.

    Attributes:
        position: (3,) m.
        rotation: (3, 3) base_from_tool.
    """

    position: Vector
    rotation: Matrix


def exp(vector: Vector) -> Matrix:
    """Returns the turn by |vector| rad about `vector` (3,) (Rodrigues)."""
    x, y, z = float(vector[0]), float(vector[1]), float(vector[2])
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < _SMALL_RAD:
        return np.array([[1.0, -z, y], [z, 1.0, -x], [-y, x, 1.0]])
    x, y, z = x / angle, y / angle, z / angle
    sine, cosine = math.sin(angle), math.cos(angle)
    rest = 1.0 - cosine
    return np.array(
        [
            [cosine + x * x * rest, x * y * rest - z * sine, x * z * rest + y * sine],
            [y * x * rest + z * sine, cosine + y * y * rest, y * z * rest - x * sine],
            [z * x * rest - y * sine, z * y * rest + x * sine, cosine + z * z * rest],
        ]
    )


def log(rotation: Matrix) -> Vector:
    """Returns (3,) the rotation vector of `rotation`, its angle in [0, pi); the inverse of `exp`."""
    twice_sine = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = 0.5 * math.sqrt(float(twice_sine @ twice_sine))
    cosine = 0.5 * (float(rotation[0, 0] + rotation[1, 1] + rotation[2, 2]) - 1.0)
    if sine < _SMALL_RAD:
        return 0.5 * twice_sine
    return twice_sine * (math.atan2(sine, cosine) / (2.0 * sine))


def from_rpy(roll: float, pitch: float, yaw: float) -> Matrix:
    """Returns Rz(yaw) Ry(pitch) Rx(roll)."""
    return (
        exp(np.array([0.0, 0.0, yaw]))
        @ exp(np.array([0.0, pitch, 0.0]))
        @ exp(np.array([roll, 0.0, 0.0]))
    )


def to_rpy(rotation: Matrix) -> tuple[float, float, float]:
    """Returns (roll, pitch, yaw) of `from_rpy`; pitch lies in [-pi/2, pi/2]."""
    pitch = math.asin(min(1.0, max(-1.0, -float(rotation[2, 0]))))
    return (
        math.atan2(rotation[2, 1], rotation[2, 2]),
        pitch,
        math.atan2(rotation[1, 0], rotation[0, 0]),
    )
