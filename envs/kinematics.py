"""Kinematics of the arm alone: where the tool is for given joints, and joints that put it somewhere."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.arms import HOME_JOINTS, JOINT_HIGH, JOINT_LOW, NUM_JOINTS, arm_only_xml
from envs.rotations import Matrix, Vector, to_rotation_vector

_DAMPING = 0.02  # of the least squares; large enough that the stretched arm does not jump
_POSTURE_GAIN = (
    0.05  # share of the distance to the home posture taken per iteration, in the null space
)
_LIMIT_MARGIN_RAD = 0.02


class ArmKinematics:
    """Forward kinematics and damped least squares; keeps its own small model, so a running simulation is untouched."""

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_string(arm_only_xml())
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("tool").id
        self._jacobian = np.zeros((6, self._model.nv))

    def tool_pose(self, joints: Vector) -> tuple[Vector, Matrix]:
        """Returns the tool centre (3,) in m and base_from_tool (3, 3) for `joints` (7,) rad."""
        self._forward(joints)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(
            3, 3
        ).copy()

    def solve(
        self,
        joints: Vector,
        position: Vector,
        rotation: Matrix,
        *,
        max_iterations: int = 6,
        tolerance: float = 2e-4,
    ) -> Vector:
        """Returns joints (7,) near `joints` that bring the tool to the pose, or as near as limits and iterations allow.

        Args:
            joints: (7,) rad, where the search starts.
            position: (3,) m, tool centre in the base frame.
            rotation: (3, 3) base_from_tool.
            max_iterations: upper bound on the damped least squares steps.
            tolerance: stops when position (m) and rotation (rad) errors are both below it.
        """
        joints = np.array(joints, dtype=np.float64)
        error = np.empty(6)
        for _ in range(max_iterations):
            self._forward(joints)
            error[:3] = position - self._data.site_xpos[self._site]
            error[3:] = to_rotation_vector(
                rotation @ self._data.site_xmat[self._site].reshape(3, 3).T
            )
            if np.abs(error).max() < tolerance:
                break
            joints = self._step(joints, error)
        return joints

    def _step(self, joints: Vector, error: Vector) -> Vector:
        mujoco.mj_jacSite(
            self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site
        )
        jacobian = self._jacobian[:, :NUM_JOINTS]
        posture = _POSTURE_GAIN * (HOME_JOINTS - joints)
        gram = jacobian @ jacobian.T
        gram[np.diag_indices(6)] += _DAMPING**2
        # One solve for both: J+ error + (I - J+ J) posture = posture + J+ (error - J posture).
        change = posture + jacobian.T @ np.linalg.solve(gram, error - jacobian @ posture)
        return np.clip(
            joints + change, JOINT_LOW + _LIMIT_MARGIN_RAD, JOINT_HIGH - _LIMIT_MARGIN_RAD
        )

    def _forward(self, joints: Vector) -> None:
        self._data.qpos[:NUM_JOINTS] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
