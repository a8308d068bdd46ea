"""The expert that slides an object over the table with closed fingers."""

from __future__ import annotations

import math

import numpy as np

from envs.controller import MAX_YAW_RAD
from envs.experts.motion import CLEARANCE_M, CLOSED, Action, move, rise, tool_yaw
from envs.rotations import UP, wrap
from envs.scene import Scene
from envs.tasks.task import Goal

_BEHIND_M = 0.055  # where the fingers come down, measured from the object's centre
_TOOL_HEIGHT_M = 0.022
_DONE_M = 0.025  # distance from the middle of the square at which pushing ends
_MAX_PUSH_M = 0.025
_RETREAT_M = 0.12


def push(scene: Scene, goal: Goal) -> Action:
    """Returns the next action (7,) of pushing the named object into the square.

    The fingers' broad side faces the way to go. Whenever the tool is not behind the object it goes there over the top.
    """
    center, tool = scene.object_position(goal.target), scene.tool_position
    way = (scene.fixture_position("zone") - center)[:2]
    distance = float(np.linalg.norm(way))
    if distance < _DONE_M:
        return _back_off(scene, center)
    way /= distance
    yaw = _pushing_yaw(way)
    along, across = _split(tool[:2] - center[:2], way)
    is_behind = -0.075 < along < -0.02 and abs(across) < 0.012
    if is_behind and tool[2] < _TOOL_HEIGHT_M + 0.015:
        step = np.array([*(tool[:2] + way * min(distance, _MAX_PUSH_M)), _TOOL_HEIGHT_M])
        step[:2] -= across * np.array([-way[1], way[0]])
        return move(scene, step, yaw, CLOSED)
    start = np.array([*(center[:2] - _BEHIND_M * way), _TOOL_HEIGHT_M])
    off_xy = float(np.linalg.norm((start - tool)[:2]))
    height = min(CLEARANCE_M, 2.5 * max(off_xy - 0.006, 0.0))
    if tool[2] < start[2] + height - 0.03:
        return rise(scene, start[2] + height, CLOSED)
    return move(scene, start + height * UP, yaw, CLOSED)


def _pushing_yaw(way: np.ndarray) -> float:
    """Returns the yaw that sets the fingers' broad side against `way` (2,).

    The object is then in front of the wrist camera, unless the wrist does not turn that far.
    """
    facing = math.atan2(way[1], way[0])
    return facing if abs(facing) <= MAX_YAW_RAD else wrap(facing + math.pi, 2 * math.pi)


def _split(offset: np.ndarray, way: np.ndarray) -> tuple[float, float]:
    """Returns the parts of `offset` (2,) along the unit vector `way` (2,) and across it (to its left)."""
    return float(offset @ way), float(offset @ np.array([-way[1], way[0]]))


def _back_off(scene: Scene, center: np.ndarray) -> Action:
    """Returns the action away from the object, then up."""
    away = (scene.tool_position - center)[:2]
    distance = float(np.linalg.norm(away))
    if scene.tool_position[2] < 0.05 and distance < 0.05:
        back = scene.tool_position
        back[:2] += 0.03 * away / max(distance, 1e-6)
        return move(scene, back, tool_yaw(scene), CLOSED)
    return rise(scene, _RETREAT_M, CLOSED)
