"""The last thing a joint command passes: whatever is asked for, positions, velocities and accelerations stay in limits.

Commands are a sequence q[k] with period dt. Velocity means (q[k] - q[k-1]) / dt and acceleration the change of that
velocity per dt, as a drive sees them. The limiter only ever hands out a velocity from which the joint can still brake
to rest before its position limit; since braking at full deceleration keeps that true, there is always a permitted
velocity, and the three limits hold for every input by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla.control.limits import JointLimits
from vla.control.rotation import Vector
from vla.errors import RobotError

# Room kept to the limits for rounding: about ten thousand times the error of one step in float64.
_ROUNDING_RAD = 1e-9
_ROUNDING_SHARE = 1e-9


@dataclass(frozen=True, slots=True)
class Limited:
    """One joint command and what it took.

    Attributes:
        joints: (joints,) rad, to be sent.
        velocity: (joints,) rad/s that this command means.
        by_position, by_velocity, by_acceleration: (joints,) True where that limit changed the command.
    """

    joints: Vector
    velocity: Vector
    by_position: NDArray[np.bool_]
    by_velocity: NDArray[np.bool_]
    by_acceleration: NDArray[np.bool_]

    @property
    def is_limited(self) -> bool:
        return bool(self.by_position.any() or self.by_velocity.any() or self.by_acceleration.any())


class JointLimiter:
    """Follows a joint target as fast as the limits permit, without overshooting one that stands still."""

    def __init__(self, limits: JointLimits, period_s: float, margin_rad: float) -> None:
        self._limits = limits
        self._dt = period_s
        self.low = np.asarray(limits.low) + margin_rad
        self.high = np.asarray(limits.high) - margin_rad
        self._max_velocity = np.asarray(limits.velocity) * (1 - _ROUNDING_SHARE)
        self._max_acceleration = np.asarray(limits.acceleration) * (1 - _ROUNDING_SHARE)
        self._max_change = self._max_acceleration * period_s  # of velocity in one period
        self.joints: Vector = (self.low + self.high) / 2
        self.velocity: Vector = np.zeros(limits.num_joints)
        self._last_target = self.joints.copy()

    def reset(self, joints: Vector) -> None:
        """Starts anew at rest at `joints` (joints,); raises RobotError when that is not finite or beyond a limit."""
        names, limits = self._limits.names, self._limits
        for name, value, low, high in zip(names, joints, limits.low, limits.high, strict=True):
            if not low <= value <= high:  # also when not a number
                raise RobotError(
                    f"{name} stands at {value:.4f} rad, outside [{low:.4f}, {high:.4f}] rad; "
                    "move it inside before starting"
                )
        self.joints = np.array(joints, dtype=np.float64)
        self.velocity = np.zeros_like(self.joints)
        self._last_target = self.joints.copy()

    def follow(self, target: Vector) -> Limited:
        """Returns the next command towards `target` (joints,) rad; it must be finite.

        The velocity of the target is fed forward, so that a target that itself keeps the limits is met exactly.
        """
        asked, target = target, np.clip(target, self.low, self.high)
        ahead = np.clip(
            (target - self._last_target) / self._dt, -self._max_velocity, self._max_velocity
        )
        behind = (
            target - ahead * self._dt - self.joints
        )  # distance to make up on top of the target's own motion
        self._last_target = target
        wanted = ahead + np.sign(behind) * self._fastest_to_stop_within(np.abs(behind))
        return self._advance(wanted, is_beyond=asked != target)

    def brake(self) -> Limited:
        """Returns the next command of the quickest stop that the limits permit."""
        self._last_target = self.joints + self.velocity * self._dt
        return self._advance(np.zeros_like(self.velocity), np.zeros(len(self.joints), dtype=bool))

    def _advance(self, wanted: Vector, is_beyond: NDArray[np.bool_]) -> Limited:
        within_velocity = np.clip(wanted, -self._max_velocity, self._max_velocity)
        lowest = -self._fastest_to_stop_within(self.joints - self.low)
        highest = self._fastest_to_stop_within(self.high - self.joints)
        within_position = np.clip(within_velocity, lowest, highest)
        velocity = np.clip(
            within_position, self.velocity - self._max_change, self.velocity + self._max_change
        )
        self.velocity = velocity
        self.joints = self.joints + velocity * self._dt
        return Limited(
            joints=self.joints,
            velocity=velocity,
            by_position=is_beyond | (within_position != within_velocity),
            by_velocity=within_velocity != wanted,
            by_acceleration=velocity != within_position,
        )

    def _fastest_to_stop_within(self, room: Vector) -> Vector:
        """Returns the largest velocity (joints,) from which this step and the braking steps after it cover `room` rad.

        Braking takes one unit c = acceleration x dt off per step. From w units this step and the following ones cover
        (w + (w - 1) + ... ) c dt = (w (n + 1) - n (n + 1) / 2) c dt with n = floor(w), which is solved for w here.
        """
        units = np.maximum(room - _ROUNDING_RAD, 0.0) / (self._max_change * self._dt)
        n = np.floor((np.sqrt(1 + 8 * units) - 1) / 2)
        return (units + n * (n + 1) / 2) / (n + 1) * self._max_change
