"""From actions at the policy's rate to a tool pose for every servo tick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla.control.rotation import Pose, Vector, exp, log, orthonormal


@dataclass(frozen=True)
class ToolTarget:
    """What the tool should do at one servo tick.

    Attributes:
        pose: position in m and base_from_tool.
        gripper: opening, 1 open, 0 closed.
    """

    pose: Pose
    gripper: float


class ToolTrajectory:
    """Joins end-effector deltas (vla.types.END_EFFECTOR_DELTA_7D) into one smooth motion.

    Each action moves the target from where the last action ended to its own goal, in one action period. Position and
    rotation follow a cubic Hermite curve that starts with the velocity at hand and ends with the mean velocity of this
    action and the next, or at rest when there is none or it turns back: velocities are continuous and a curve never
    overshoots its end. The rotation vector from the start of the action is what is interpolated, so a turn about one
    axis is a slerp with that timing. The gripper takes its new value at once and keeps it.
    """

    def __init__(self, period_s: float) -> None:
        """Starts nowhere; `period_s` is the duration of one action."""
        self._period_s = period_s
        self.reset(Pose(np.zeros(3), np.eye(3)), 1.0)

    def reset(self, pose: Pose, gripper: float) -> None:
        """Stands still at `pose`; the next action starts there."""
        self._start = pose
        self._goal = pose
        self._gripper = gripper
        self._move: Vector = np.zeros(6)  # translation and rotation vector of this action
        self._velocity_in: Vector = np.zeros(6)
        self._velocity_out: Vector = np.zeros(6)
        self._elapsed_s = self._period_s

    @property
    def goal(self) -> Pose:
        """Where the action in progress ends."""
        return self._goal

    @property
    def has_ended(self) -> bool:
        """True when the action in progress is through, and the next may begin."""
        return self._elapsed_s >= self._period_s - 1e-9

    def begin(self, goal: Pose, gripper: float, following: NDArray[np.floating] | None) -> None:
        """Starts an action when the last one has ended.

        Args:
            goal: where the action is to end.
            gripper: 1 open, 0 closed.
            following: (7,) END_EFFECTOR_DELTA_7D expected after it, or None.
        """
        velocity = self._velocity(1.0)
        self._start = self._goal
        self._goal = goal
        self._move = np.concatenate(
            [self._goal.position - self._start.position, log(self._goal.rotation @ self._start.rotation.T)]
        )
        self._velocity_in = velocity
        self._velocity_out = self._expected_velocity(following)
        self._gripper = gripper
        self._elapsed_s = 0.0

    def advance(self, dt_s: float) -> ToolTarget:
        """Returns the target `dt_s` later; it stays at the end of the action when no other begins."""
        self._elapsed_s = min(self._elapsed_s + dt_s, self._period_s)
        share = self._elapsed_s / self._period_s
        offset = self._offset(share)
        pose = Pose(self._start.position + offset[:3], exp(offset[3:]) @ self._start.rotation)
        return ToolTarget(pose, self._gripper)

    def _expected_velocity(self, following: NDArray[np.floating] | None) -> Vector:
        if following is None:
            return np.zeros(6)
        rest_of_way = np.asarray(following[:6], dtype=np.float64)
        same_way = self._move * rest_of_way > 0
        return np.where(same_way, (self._move + rest_of_way) / (2 * self._period_s), 0.0)

    def _offset(self, share: float) -> Vector:
        s, period = share, self._period_s
        start, end = s * (1 - s) ** 2 * period, s * s * (s - 1) * period
        return s * s * (3 - 2 * s) * self._move + start * self._velocity_in + end * self._velocity_out

    def _velocity(self, share: float) -> Vector:
        s, period = share, self._period_s
        start, end = (1 - s) * (1 - 3 * s), s * (3 * s - 2)
        return 6 * s * (1 - s) / period * self._move + start * self._velocity_in + end * self._velocity_out


def leashed(pose: Pose, anchor: Pose, leash_m: float, leash_rad: float) -> Pose:
    """Returns `pose`, pulled to within `leash_m` and `leash_rad` of `anchor`."""
    lead, turn = pose.position - anchor.position, log(pose.rotation @ anchor.rotation.T)
    distance, angle = float(np.linalg.norm(lead)), float(np.linalg.norm(turn))
    if distance <= leash_m and angle <= leash_rad:
        return pose
    lead = lead * min(1.0, leash_m / max(distance, 1e-12))
    turn = turn * min(1.0, leash_rad / max(angle, 1e-12))
    return Pose(anchor.position + lead, exp(turn) @ anchor.rotation)


def moved(pose: Pose, delta: Vector) -> Pose:
    """Returns `pose` after a translation (m) along and a turn (rad) about the base axes, `delta` (6,)."""
    return Pose(pose.position + delta[:3], orthonormal(exp(delta[3:]) @ pose.rotation))
