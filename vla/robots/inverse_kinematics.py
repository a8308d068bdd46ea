"""Joints that bring the tool somewhere, as a quadratic program with the joints' limits as constraints (mink).

An arm with fewer than six joints cannot reach a position and an orientation at once. Which of the two gives way is a
setting, and what is left over is reported.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# mink calls its arrays np.ndarray and no more.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mink
import mujoco
import numpy as np

from vla.control.limits import JointLimits
from vla.control.rotation import Pose, Vector, log
from vla.errors import RobotError
from vla.robots.ik_config import InverseKinematicsConfig, Priority

_METRES_PER_RAD = {Priority.POSITION: 0.005, Priority.BALANCED: 0.1, Priority.ORIENTATION: 5.0}


@dataclass(frozen=True)
class Residual:
    """What is left between the tool and its goal: m, and rad about the shortest axis."""

    position_m: float
    orientation_rad: float


class LimitedKinematics:
    """Forward and inverse kinematics of one arm whose solutions keep position and velocity limits.

    Attributes:
        residual: what the last `solve` left over.
    """

    def __init__(
        self,
        model: Any,
        tool_site: str,
        limits: JointLimits,
        *,
        duration_s: float,
        margin_rad: float = 0.0,
        config: InverseKinematicsConfig | None = None,
    ) -> None:
        """Prepares the arm.

        Args:
            model: mujoco.MjModel with hinges of the names in `limits`.
            tool_site: site at the tool centre, z along the fingers.
            limits: ranges and velocities of the joints.
            duration_s: how long the arm has for the way from `start` to the solution: no joint goes further than its
                velocity limit permits in that time.
            margin_rad: how far inside their ranges the joints stay.
            config: priority and effort.
        """
        self._config = config or InverseKinematicsConfig()
        self._site = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_SITE), tool_site)
        joints = [
            mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_JOINT), name) for name in limits.names
        ]
        names = (tool_site, *limits.names)
        missing = [name for name, i in zip(names, (self._site, *joints), strict=True) if i < 0]
        if missing:
            raise RobotError(
                f"the model of the robot has no {', '.join(missing)}; give the names that its model uses"
            )
        self._qpos: Sequence[int] = [int(model.jnt_qposadr[j]) for j in joints]
        self._dofs: Sequence[int] = [int(model.jnt_dofadr[j]) for j in joints]
        self._low = np.asarray(limits.low) + margin_rad
        self._high = np.asarray(limits.high) - margin_rad
        self._max_way = np.asarray(limits.velocity) * duration_s
        self._configuration = mink.Configuration(model)
        weight = _METRES_PER_RAD[self._config.priority]
        scale = max(1.0, weight)  # neither cost above 1, so that the damping means the same
        self._task = mink.FrameTask(
            tool_site, "site", position_cost=1.0 / scale, orientation_cost=weight / scale
        )
        self._box = _Box(model.nv)
        self.residual = Residual(0.0, 0.0)

    def pose(self, joints: Vector) -> Pose:
        """Returns the tool pose for `joints` (joints,) rad."""
        self._place(joints)
        data = self._configuration.data
        return Pose(
            data.site_xpos[self._site].copy(), data.site_xmat[self._site].reshape(3, 3).copy()
        )

    def solve(self, start: Vector, goal: Pose) -> Vector:
        """Returns joints (joints,) rad within reach of `start` whose tool pose is as near to `goal` as they permit."""
        config = self._config
        start = np.clip(start, self._low, self._high)
        lowest = np.maximum(self._low, start - self._max_way)
        highest = np.minimum(self._high, start + self._max_way)
        self._task.set_target(
            mink.SE3.from_rotation_and_translation(
                mink.SO3.from_matrix(goal.rotation), goal.position
            )
        )
        joints = start.copy()
        reached = self.pose(joints)
        for _ in range(config.max_iterations):
            joints = np.clip(joints + self._step(joints, lowest, highest), lowest, highest)
            before, reached = reached, self.pose(joints)
            moved = float(np.linalg.norm(reached.position - before.position))
            turned = float(np.abs(reached.rotation - before.rotation).max())
            if moved < config.tolerance_m and turned < 10 * config.tolerance_m:
                break
        self.residual = Residual(
            float(np.linalg.norm(goal.position - reached.position)),
            float(np.linalg.norm(log(goal.rotation @ reached.rotation.T))),
        )
        return joints

    def _step(self, joints: Vector, lowest: Vector, highest: Vector) -> Vector:
        self._box.lowest[self._dofs] = lowest - joints
        self._box.highest[self._dofs] = highest - joints
        damping = self._config.damping
        try:
            change = mink.solve_ik(
                self._configuration, [self._task], 1.0, "daqp", damping, limits=[self._box]
            )
        except mink.NoSolutionFound:  # the start itself is on a bound and rounding put it outside
            return np.zeros_like(joints)
        return np.asarray(change)[self._dofs]

    def _place(self, joints: Vector) -> None:
        qpos = self._configuration.q.copy()
        qpos[self._qpos] = joints
        self._configuration.update(qpos)


class _Box(mink.Limit):
    """Bounds of every joint step; 0 for hinges that are not the arm's, such as the gripper's."""

    def __init__(self, num_dofs: int) -> None:
        self.lowest: Vector = np.zeros(num_dofs)
        self.highest: Vector = np.zeros(num_dofs)
        self._rows = np.vstack([np.eye(num_dofs), -np.eye(num_dofs)])

    def compute_qp_inequalities(self, configuration: mink.Configuration, dt: float) -> Any:
        """Returns lowest <= step <= highest as mink wants it."""
        return mink.Constraint(self._rows, np.concatenate([self.highest, -self.lowest]))
