"""The last thing a joint command passes: whatever is asked for, it stays inside position, velocity, acceleration, jerk.

Commands are a sequence q[k] with period dt. Velocity means (q[k] - q[k-1]) / dt, acceleration the change of that
velocity per dt and jerk the change of that, as a drive sees them. The limiter only ever hands out a velocity from which
the joint can still brake to rest before its position limit; since braking at full deceleration keeps that true, there
is always a permitted velocity, and the limits hold for every input by construction. Jerk needs no rule of its own: the
worst there is, a full reversal of acceleration within one tick, is 2 a / dt, and a is chosen so that this is permitted.
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
    """Follows a joint target as fast as the limits permit, without overshooting one that stands still.

    Attributes:
        joints, velocity: (joints,) rad and rad/s of the last command.
        target: (joints,) rad, the last target, as far as it is inside the range.
        acceleration: (joints,) rad/s^2 that commands keep to at this period.
    """

    def __init__(self, limits: JointLimits, period_s: float, margin_rad: float) -> None:
        self._limits = limits
        self._dt = period_s
        self.low = np.asarray(limits.low) + margin_rad
        self.high = np.asarray(limits.high) - margin_rad
        self.acceleration = permitted_acceleration(limits, period_s)
        self._max_velocity = np.asarray(limits.velocity) * (1 - _ROUNDING_SHARE)
        # of velocity in one period
        self._max_change = self.acceleration * (1 - _ROUNDING_SHARE) * period_s
        self._unit = self._max_change * period_s  # rad, the way of that change
        self._rooms: NDArray[np.float64] = np.zeros((3, limits.num_joints))
        self.joints: Vector = (self.low + self.high) / 2
        self.velocity: Vector = np.zeros(limits.num_joints)
        self.target: Vector = self.joints.copy()

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
        self.target = self.joints.copy()

    def follow(self, target: Vector) -> Limited:
        """Returns the next command towards `target` (joints,) rad; it must be finite.

        The velocity of the target is fed forward, so that a target that itself keeps the limits is met exactly.
        """
        inside = np.minimum(np.maximum(target, self.low), self.high)
        ahead = (inside - self.target) / self._dt
        ahead = np.minimum(np.maximum(ahead, -self._max_velocity), self._max_velocity)
        # distance to make up on top of the target's own motion
        behind = inside - ahead * self._dt - self.joints
        self.target = inside
        fastest = self._fastest_to_stop(np.abs(behind))
        return self._advance(ahead + np.copysign(fastest[0], behind), fastest, inside != target)

    def brake(self) -> Limited:
        """Returns the next command of the quickest stop that the limits permit."""
        self.target = self.joints + self.velocity * self._dt
        nothing = np.zeros(len(self.joints))
        return self._advance(nothing, self._fastest_to_stop(nothing), nothing.astype(bool))

    def _advance(
        self, wanted: Vector, fastest: NDArray[np.float64], is_beyond: NDArray[np.bool_]
    ) -> Limited:
        within_velocity = np.minimum(np.maximum(wanted, -self._max_velocity), self._max_velocity)
        within_position = np.minimum(np.maximum(within_velocity, -fastest[1]), fastest[2])
        lowest, highest = self.velocity - self._max_change, self.velocity + self._max_change
        velocity = np.minimum(np.maximum(within_position, lowest), highest)
        self.velocity = velocity
        self.joints = self.joints + velocity * self._dt
        return Limited(
            self.joints,
            velocity,
            is_beyond | (within_position != within_velocity),
            within_velocity != wanted,
            velocity != within_position,
        )

    def _fastest_to_stop(self, room: Vector) -> NDArray[np.float64]:
        """Returns (3, joints): the largest velocity from which this step and the braking steps after it cover the
        distance `room` (joints,) rad, the way to the lower end of the range, and the way to its upper end.

        Braking takes one unit c = acceleration x dt off per step. From w units this step and the following ones cover
        (w + (w - 1) + ... ) c dt = (w (n + 1) - n (n + 1) / 2) c dt with n = floor(w), which is solved for w here.
        """
        rooms = self._rooms
        rooms[0] = room
        np.subtract(self.joints, self.low, out=rooms[1])
        np.subtract(self.high, self.joints, out=rooms[2])
        units = np.maximum(rooms - _ROUNDING_RAD, 0.0) / self._unit
        n = np.floor(0.5 * np.sqrt(8 * units + 1) - 0.5)
        return (units / (n + 1) + 0.5 * n) * self._max_change


def permitted_acceleration(limits: JointLimits, period_s: float) -> Vector:
    """Returns (joints,) rad/s^2 that may be commanded at this period: the limit, or less where jerk needs it."""
    acceleration = np.asarray(limits.acceleration)
    if limits.jerk is None:
        return acceleration
    return np.minimum(acceleration, 0.5 * np.asarray(limits.jerk) * period_s)
