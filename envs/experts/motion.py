"""Moves that experts are made of, each a function of the present state: any visited state can be labelled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.arms import HOME_ROTATION, MAX_GRIP_WIDTH_M
from envs.controller import MAX_YAW_RAD
from envs.rotations import UP, Vector, from_rpy, to_rotation_vector, to_rpy, wrap
from envs.scene import Scene
from vla.types import END_EFFECTOR_DELTA_7D

OPEN, CLOSED = 1.0, 0.0
CLEARANCE_M = (
    0.08  # tool height over an object at which the open gripper passes over its neighbours
)
_FUNNEL_SLOPE = 2.5  # the approach: metres of height per metre of misalignment
_ALIGNED_M = 0.008
_ALIGNED_RAD = 0.12
_MAX_STEP_M = END_EFFECTOR_DELTA_7D.high[0]
_MAX_TURN_RAD = END_EFFECTOR_DELTA_7D.high[3]

Action = NDArray[np.float32]


def move(
    scene: Scene, position: Vector, yaw: float, gripper: float, max_step_m: float = _MAX_STEP_M
) -> Action:
    """Returns the action (7,) that goes straight to a tool position (3,) m and yaw, upright, as fast as allowed."""
    shift = position - scene.tool_position
    shift = shift * min(1.0, max_step_m / max(float(np.abs(shift).max()), 1e-9))
    turn = to_rotation_vector(from_rpy(0.0, 0.0, yaw) @ HOME_ROTATION @ scene.tool_rotation.T)
    turn = turn * min(1.0, _MAX_TURN_RAD / max(float(np.abs(turn).max()), 1e-9))
    return np.concatenate([shift, turn, [gripper]]).astype(np.float32)


def tool_yaw(scene: Scene) -> float:
    """Returns the tool's yaw away from its home orientation, rad."""
    return float(to_rpy(scene.tool_rotation @ HOME_ROTATION.T)[2])


def grasp_yaw(scene: Scene, slot: int) -> float:
    """Returns the tool yaw nearest to the present one that grasps the object across its faces."""
    symmetry = scene.objects[slot].geometry.symmetry_rad
    if symmetry == 0.0:
        return float(np.clip(tool_yaw(scene), -0.5 * math.pi, 0.5 * math.pi))
    return nearest_yaw(scene, scene.object_yaw(slot), symmetry)


def nearest_yaw(scene: Scene, yaw: float, symmetry: float) -> float:
    """Returns `yaw` plus the multiple of `symmetry` that is reachable and nearest to the tool's."""
    present = tool_yaw(scene)
    nearest = present + wrap(yaw - present, symmetry)
    if nearest > MAX_YAW_RAD:
        return nearest - symmetry
    return nearest + symmetry if nearest < -MAX_YAW_RAD else nearest


def grasp(scene: Scene, slot: int) -> Action:
    """Returns the next action (7,) of reaching for an object that is not held yet.

    Comes down through a funnel: high over the table while off to the side, at the object's height once aligned with
    it and open, and closes the fingers only there.
    """
    goal, yaw = scene.object_position(slot), grasp_yaw(scene, slot)
    off_xy = float(np.linalg.norm((scene.tool_position - goal)[:2]))
    off_yaw = abs(wrap(tool_yaw(scene) - yaw, 2 * math.pi))
    width = scene.grip_width_m
    is_closing = width < MAX_GRIP_WIDTH_M - 0.008
    slack = 2.0 if is_closing else 1.0  # fingers on their way shift the object a little; carry on
    is_aligned = off_xy < slack * _ALIGNED_M and off_yaw < slack * _ALIGNED_RAD
    is_low = abs(scene.tool_position[2] - goal[2]) < slack * 0.008
    is_empty = width < 0.5 * scene.objects[slot].geometry.grip_width_m
    if is_aligned and is_low and not is_empty:
        return move(scene, goal, yaw, CLOSED)
    if is_closing:  # the fingers would come down on the object
        goal = goal + (0.06 if off_xy < 0.05 else CLEARANCE_M) * UP
        return (
            move(scene, goal, yaw, OPEN)
            if scene.tool_position[2] > goal[2] - 0.03
            else rise(scene, goal[2], OPEN)
        )
    misaligned = max(off_xy - 0.5 * _ALIGNED_M, 0.03 * (off_yaw - _ALIGNED_RAD), 0.0)
    return descend(scene, goal, yaw, OPEN, height=min(CLEARANCE_M, _FUNNEL_SLOPE * misaligned))


def descend(scene: Scene, goal: Vector, yaw: float, gripper: float, height: float) -> Action:
    """Returns the action towards `height` over `goal`; straight up first when far below that."""
    waypoint = goal + height * UP
    if scene.tool_position[2] < waypoint[2] - 0.03:
        return rise(scene, waypoint[2], gripper)
    return move(scene, waypoint, yaw, gripper)


def rise(scene: Scene, z: float, gripper: float) -> Action:
    """Returns the action (7,) straight up (or down) to tool height `z`, m."""
    position = scene.tool_position
    position[2] = z
    return move(scene, position, tool_yaw(scene), gripper)
