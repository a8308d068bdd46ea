"""The expert that hooks the drawer's bar with closed fingers and pulls."""

from __future__ import annotations

import numpy as np

from envs.experts.motion import CLEARANCE_M, CLOSED, Action, move, rise
from envs.fixtures import HANDLE_OFFSET_M
from envs.rotations import UP
from envs.scene import Scene
from envs.tasks.open_drawer import OPEN_M
from envs.tasks.task import Goal

_HOOK_HEIGHT_M = 0.05
_GAP_M = 0.5 * HANDLE_OFFSET_M  # from the bar to the middle of the space behind it
_PULLED_M = OPEN_M + 0.02


def open_drawer(scene: Scene, goal: Goal) -> Action:
    """Returns the next action (7,) of going down behind the bar and pulling it along the drawer's axis."""
    del goal
    yaw = scene.fixture_yaw("cabinet")
    axis, side = (
        np.array([np.cos(yaw), np.sin(yaw), 0.0]),
        np.array([-np.sin(yaw), np.cos(yaw), 0.0]),
    )
    tool, handle = scene.tool_position, scene.handle_position
    along, across = float((tool - handle) @ axis), float((tool - handle) @ side)
    if scene.drawer_opening_m >= _PULLED_M:
        return move(scene, tool, yaw, CLOSED)
    is_hooked = (
        -HANDLE_OFFSET_M < along < 0.0 and abs(across) < 0.035 and tool[2] < _HOOK_HEIGHT_M + 0.012
    )
    if is_hooked:
        aim = tool + axis * (_PULLED_M + 0.02 - scene.drawer_opening_m) - side * across
        aim[2] = _HOOK_HEIGHT_M
        return move(scene, aim, yaw, CLOSED)
    entry = handle - _GAP_M * axis
    entry[2] = _HOOK_HEIGHT_M
    off_xy = float(np.linalg.norm((entry - tool)[:2]))
    height = min(CLEARANCE_M, 2.5 * max(off_xy - 0.012, 0.0))
    if tool[2] < entry[2] + height - 0.03:
        return rise(scene, entry[2] + height, CLOSED)
    return move(scene, entry + height * UP, yaw, CLOSED)
