"""Carries out end-effector deltas: keeps a tool target, solves the joints for it and moves the simulated arm there."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.arms import FINGER_TRAVEL_M, HOME_ROTATION, JOINT_SPEED, NUM_JOINTS, SERVO_LAG_S
from envs.kinematics import ArmKinematics
from envs.rotations import (
    Matrix,
    Vector,
    from_rotation_vector,
    from_rpy,
    to_rotation_vector,
    to_rpy,
)
from envs.scene import Scene
from vla.types import END_EFFECTOR_DELTA_7D

WORKSPACE_LOW_M = np.array([0.26, -0.34, 0.012])
WORKSPACE_HIGH_M = np.array([0.74, 0.34, 0.42])
MAX_TILT_RAD = 0.4
MAX_YAW_RAD = 1.6  # within the seventh joint's range all over the workspace
_LEASH_M = 0.03
_LEASH_RAD = 0.3


class ToolController:
    """Position control of the tool.

    The target is the last target plus the delta. When something holds the arm back, the target is kept on a leash
    of 3 cm (0.3 rad) around the measured pose, so that it cannot wind up.
    """

    def __init__(self, scene: Scene, kinematics: ArmKinematics) -> None:
        self._scene = scene
        self._kinematics = kinematics
        self._joints = scene.joints
        self._position, self._rotation = kinematics.tool_pose(self._joints)

    def reset(self) -> None:
        """Takes the arm's present joints as the target."""
        self._joints = self._scene.joints
        self._position, self._rotation = self._kinematics.tool_pose(self._joints)

    def move_by(self, action: NDArray[np.float32]) -> None:
        """Moves the target by `action` (7,) and simulates one policy step towards it.

        Raises:
            ActionError: a value is not finite, or there are not 7 of them.
        """
        action = END_EFFECTOR_DELTA_7D.clip(action)
        position, rotation = self._leashed()
        rotation = from_rotation_vector(action[3:6].astype(np.float64)) @ rotation
        self.move_to(position + action[:3], rotation, float(action[6]), END_EFFECTOR_DELTA_7D.dt_s)

    def move_to(
        self, position: Vector, rotation: Matrix, gripper: float, duration_s: float
    ) -> None:
        """Simulates `duration_s` of motion to a tool pose, which is first brought into the workspace.

        Args:
            position: (3,) m, tool centre in the base frame.
            rotation: (3, 3) base_from_tool.
            gripper: 1 open, 0 closed.
            duration_s: rounded to whole physics steps.
        """
        self._position = np.clip(position, WORKSPACE_LOW_M, WORKSPACE_HIGH_M)
        self._rotation = _upright(rotation)
        goal = self._kinematics.solve(self._joints, self._position, self._rotation)
        change = goal - self._joints
        hurry = float((np.abs(change) / (JOINT_SPEED * duration_s)).max())
        if (
            hurry > 1.0
        ):  # faster than the motors turn: go that way as far as they do, and take that as the target
            change /= hurry
            self._position, self._rotation = self._kinematics.tool_pose(self._joints + change)
        self._simulate(change, gripper, duration_s)
        self._joints = self._joints + change

    def _leashed(self) -> tuple[Vector, Matrix]:
        measured_position, measured_rotation = self._scene.tool_position, self._scene.tool_rotation
        lead = self._position - measured_position
        distance = float(np.linalg.norm(lead))
        if distance > _LEASH_M:
            lead *= _LEASH_M / distance
        turn = to_rotation_vector(self._rotation @ measured_rotation.T)
        angle = float(np.linalg.norm(turn))
        if angle > _LEASH_RAD:
            turn *= _LEASH_RAD / angle
        return measured_position + lead, from_rotation_vector(turn) @ measured_rotation

    def _simulate(self, change: Vector, gripper: float, duration_s: float) -> None:
        model, data = self._scene.model, self._scene.data
        num_substeps = max(1, round(duration_s / model.opt.timestep))
        # The servos follow a ramp SERVO_LAG_S behind; commanding that much ahead makes them follow it exactly.
        ahead = self._joints + change * (SERVO_LAG_S / duration_s)
        data.ctrl[NUM_JOINTS:] = FINGER_TRAVEL_M * gripper
        for substep in range(1, num_substeps + 1):
            data.ctrl[:NUM_JOINTS] = ahead + change * (substep / num_substeps)
            mujoco.mj_step(model, data)
        mujoco.mj_kinematics(
            model, data
        )  # poses of the new state; mj_step leaves those of the one before
        mujoco.mj_camlight(model, data)


def _upright(rotation: Matrix) -> Matrix:
    roll, pitch, yaw = to_rpy(rotation @ HOME_ROTATION.T)
    return (
        from_rpy(
            float(np.clip(roll, -MAX_TILT_RAD, MAX_TILT_RAD)),
            float(np.clip(pitch, -MAX_TILT_RAD, MAX_TILT_RAD)),
            float(np.clip(yaw, -MAX_YAW_RAD, MAX_YAW_RAD)),
        )
        @ HOME_ROTATION
    )
