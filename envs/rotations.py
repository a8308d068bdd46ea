"""Rotations as 3 x 3 float64 matrices; angles in radians; roll-pitch-yaw means Rz(yaw) Ry(pitch) Rx(roll)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

UP = np.array([0.0, 0.0, 1.0])


def from_rpy(roll: float, pitch: float, yaw: float) -> Matrix:
    """Returns Rz(yaw) Ry(pitch) Rx(roll)."""
    cr, sr, cp, sp = math.cos(roll), math.sin(roll), math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def to_rpy(rotation: Matrix) -> Vector:
    """Returns (3,) roll, pitch, yaw; pitch lies in [-pi/2, pi/2]."""
    pitch = math.asin(min(1.0, max(-1.0, -rotation[2, 0])))
    roll = math.atan2(rotation[2, 1], rotation[2, 2])
    yaw = math.atan2(rotation[1, 0], rotation[0, 0])
    return np.array([roll, pitch, yaw])


def from_rotation_vector(vector: Vector) -> Matrix:
    """Returns the turn by |vector| radians about `vector` (3,) (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * skew + (1.0 - math.cos(angle)) * (skew @ skew)


def to_rotation_vector(rotation: Matrix) -> Vector:
    """Returns (3,) axis times angle, angle in [0, pi]; exact up to half a turn less a microradian."""
    twice_sine = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = 0.5 * float(np.linalg.norm(twice_sine))
    cosine = 0.5 * (float(np.trace(rotation)) - 1.0)
    if sine < 1e-9:
        return 0.5 * twice_sine
    return twice_sine * (math.atan2(sine, cosine) / (2.0 * sine))


def wrap(angle: float, period: float) -> float:
    """Returns `angle` shifted by whole periods into [-period/2, period/2)."""
    return (angle + 0.5 * period) % period - 0.5 * period


def look_at(position: Vector, target: Vector, up: Vector) -> Matrix:
    """Returns world_from_camera of a camera at `position` facing `target`; x right, y up, z backwards as in OpenGL."""
    backwards = position - target
    backwards = backwards / np.linalg.norm(backwards)
    right = np.cross(up, backwards)
    right = right / np.linalg.norm(right)
    return np.array([right, np.cross(backwards, right), backwards], dtype=np.float64).T
