"""Where the tool is for given joints, and joints that bring it somewhere, on any MuJoCo model of the arm.

Damped least squares rather than mink's quadratic program: at servo rates the solver starts from the last solution, at
most a few millimetres away, where one or two steps of 60 microseconds converge; a QP step costs seven times as much.
What the QP would add, limits as constraints, is the limiter's task and is proved there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from vla.control.rotation import Pose, Vector, log
from vla.errors import RobotError

_DAMPING = 0.02  # m and rad; the stretched arm slows down instead of jumping
_POSTURE_GAIN = (
    0.05  # share of the way to the rest posture taken per step, where the tool does not feel it
)
_TOLERANCE = 2e-5  # m and rad
_MAX_STEPS = 4


class ArmKinematics:
    """Forward and inverse kinematics of one arm; keeps its own data, so a simulation on the same model is untouched."""

    def __init__(
        self,
        model: Any,
        joint_names: Sequence[str],
        tool_site: str,
        low: Vector,
        high: Vector,
        rest_posture: Vector,
    ) -> None:
        """Prepares the arm.

        Args:
            model: mujoco.MjModel that contains the arm.
            joint_names: its hinges, base first.
            tool_site: site at the tool centre, z along the fingers.
            low, high: (joints,) rad that solutions keep to.
            rest_posture: (joints,) rad that the spare degree of freedom leans to.
        """
        self._model = model
        self._data = mujoco.MjData(model)
        self._site = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_SITE), tool_site)
        joints = [
            mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_JOINT), name) for name in joint_names
        ]
        missing = [
            name
            for name, index in zip((tool_site, *joint_names), (self._site, *joints), strict=True)
            if index < 0
        ]
        if missing:
            raise RobotError(
                f"the model of the robot has no {', '.join(missing)}; give the names that its MJCF uses"
            )
        self._qpos = [int(model.jnt_qposadr[j]) for j in joints]
        self._dofs = [int(model.jnt_dofadr[j]) for j in joints]
        self._low, self._high, self._rest = low, high, rest_posture
        self._jacobian = np.zeros((6, model.nv))
        self._damping = _DAMPING**2 * np.eye(6)

    def renew(self, model: Any) -> None:
        """Takes over a model that differs from the last one in values only, not in its parts."""
        self._model = model

    def pose(self, joints: Vector) -> Pose:
        """Returns the tool pose for `joints` (joints,) rad."""
        self._forward(joints)
        return Pose(
            self._data.site_xpos[self._site].copy(),
            self._data.site_xmat[self._site].reshape(3, 3).copy(),
        )

    def solve(self, start: Vector, goal: Pose) -> Vector:
        """Returns joints (joints,) rad near `start` whose tool pose is `goal`, or as near to it as a few steps come."""
        joints = np.clip(start, self._low, self._high)
        error = np.empty(6)
        for _ in range(_MAX_STEPS):
            self._forward(joints)
            error[:3] = goal.position - self._data.site_xpos[self._site]
            error[3:] = log(goal.rotation @ self._data.site_xmat[self._site].reshape(3, 3).T)
            if np.abs(error).max() < _TOLERANCE:
                break
            joints = self._step(joints, error)
        return joints

    def _step(self, joints: Vector, error: Vector) -> Vector:
        mujoco.mj_jacSite(
            self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site
        )
        jacobian = self._jacobian[:, self._dofs]
        lean = _POSTURE_GAIN * (self._rest - joints)
        gram = jacobian @ jacobian.T + self._damping
        # J+ error + (I - J+ J) lean, with a single solve.
        change = lean + jacobian.T @ np.linalg.solve(gram, error - jacobian @ lean)
        return np.clip(joints + change, self._low, self._high)

    def _forward(self, joints: Vector) -> None:
        self._data.qpos[self._qpos] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
