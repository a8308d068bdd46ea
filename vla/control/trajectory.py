"""From actions at the policy's rate to smooth joint targets at servo rate."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vla.control.limits import JointLimits
from vla.control.rotation import Pose, Vector, exp, log

_LONGEST_S = 3.0
_SHARE = 0.98  # of velocity and acceleration that plans use; sampling a curve adds a little
_SAMPLES = np.linspace(0.0, 1.0, 9)[:, None, None]


class JointTrajectory:
    """One cubic (Hermite) per action, from the joints' present position and velocity to the action's goal.

    An action's goal is due after one action period. When velocity or acceleration limits do not allow that, the
    same curve is stretched over the shortest time that they do allow: all joints slow down together, so the tool
    stays on its way instead of swerving while one joint lags. The next action replaces the curve after one period
    in any case.

    The curve ends with the velocity that leads on to the action expected next (the harmonic mean of the two
    slopes, as in monotone cubic interpolation; 0 where a joint turns back), or at rest when none is. Goals are at
    most a few centimetres apart. Over such a distance a cubic in joint space stays within two millimetres of the
    tool's straight line and next to its slerp, and the limits can be planned exactly.
    """

    def __init__(self, limits: JointLimits, period_s: float) -> None:
        """`period_s` is the duration of one action."""
        self._max_velocity = _SHARE * np.asarray(limits.velocity)
        self._max_acceleration = _SHARE * np.asarray(limits.acceleration)
        self._period_s = period_s
        # Stretched durations to choose from: 10 % apart, which is as much as a plan may be slower than it could be.
        self._durations: Vector = period_s * 1.1 ** np.arange(
            np.ceil(np.log(_LONGEST_S / period_s) / np.log(1.1))
        )
        self._coefficients: NDArray[np.float64] = np.zeros((4, limits.num_joints))
        self._duration_s = self._elapsed_s = period_s

    @property
    def has_ended(self) -> bool:
        """True once the action has had its period: the next may begin, even if the goal is not reached yet."""
        return self._elapsed_s >= self._period_s - 1e-9

    def begin(
        self, joints: Vector, velocity: Vector, goal: Vector, following: Vector | None
    ) -> None:
        """Plans the way to a goal.

        Args:
            joints: (joints,) rad, where the commands are now.
            velocity: (joints,) rad/s, how they move now.
            goal: (joints,) rad.
            following: (joints,) rad, the goal after that, or None when none is known.
        """
        way = goal - joints
        onward = np.zeros_like(way) if following is None else following - goal
        same_way = way * onward > 0
        slope = np.where(same_way, 2 * way * onward / np.where(same_way, way + onward, 1.0), 0.0)
        durations = self._durations[:, None]
        position = np.broadcast_to(joints, (len(durations), len(joints)))
        curves = _cubic(position, velocity, way, slope / durations, durations)
        duration = self._durations[self._first_permitted(curves)]
        self._coefficients = _cubic(joints, velocity, way, slope / duration, duration)
        self._duration_s, self._elapsed_s = float(duration), 0.0

    def advance(self, dt_s: float) -> Vector:
        """Returns the joints (joints,) rad that are due `dt_s` later; at the goal they stay there."""
        self._elapsed_s += dt_s
        time = min(self._elapsed_s, self._duration_s)
        a, b, c, d = self._coefficients
        return a + time * (b + time * (c + time * d))

    def _first_permitted(self, curves: NDArray[np.float64]) -> int:
        """Returns the index of the shortest duration whose curve keeps the limits; else the last.

        `curves` are coefficients (4, durations, joints).
        """
        _, b, c, d = curves
        at_end = self._durations[:, None]
        acceleration = np.maximum(
            np.abs(2 * c), np.abs(2 * c + 6 * d * at_end)
        )  # linear in time: largest at an end
        time = _SAMPLES * at_end
        velocity = np.abs(b + time * (2 * c + time * 3 * d)).max(axis=0)
        permitted = (acceleration <= self._max_acceleration).all(axis=1) & (
            velocity <= self._max_velocity
        ).all(axis=1)
        return int(np.argmax(permitted)) if permitted.any() else len(permitted) - 1


def held(present: float, command: float, band: float = 0.1) -> float:
    """Returns the gripper command to send: the present one unless the new one differs by more than `band`.

    A gripper is told where to be at once and keeps it: a ramp would grip at the wrong moment, and numbers that waver
    around one value would make it chatter.
    """
    return command if abs(command - present) > band else present


def goal_of(anchor: Pose, actions: Iterable[NDArray[np.floating]]) -> Pose:
    """Returns where END_EFFECTOR_DELTA_7D actions, one after the other, lead from `anchor`."""
    position, rotation = anchor.position, anchor.rotation
    for action in actions:
        delta = np.asarray(action[:6], dtype=np.float64)
        position, rotation = position + delta[:3], exp(delta[3:]) @ rotation
    return Pose(position, rotation)


def leashed(pose: Pose, anchor: Pose, leash_m: float, leash_rad: float) -> Pose:
    """Returns `pose`, pulled to within `leash_m` and `leash_rad` of `anchor`."""
    lead, turn = pose.position - anchor.position, log(pose.rotation @ anchor.rotation.T)
    distance, angle = float(np.linalg.norm(lead)), float(np.linalg.norm(turn))
    if distance <= leash_m and angle <= leash_rad:
        return pose
    lead = lead * min(1.0, leash_m / max(distance, 1e-12))
    turn = turn * min(1.0, leash_rad / max(angle, 1e-12))
    return Pose(anchor.position + lead, exp(turn) @ anchor.rotation)


def _cubic(
    position: Vector, velocity: Vector, way: Vector, end_velocity: Vector, duration: Vector
) -> NDArray[np.float64]:
    """Returns coefficients (4, ...) of the cubic through `way` in `duration` with these velocities at its ends."""
    start = np.broadcast_to(velocity, position.shape)
    c = (3 * way / duration - 2 * start - end_velocity) / duration
    d = (-2 * way / duration + start + end_velocity) / duration**2
    return np.stack([position, start, c, d])
