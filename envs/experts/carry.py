"""Experts that grasp an object, carry it somewhere and let go of it."""

from __future__ import annotations

import numpy as np

from envs.experts.motion import CLOSED, OPEN, Action, grasp, move, nearest_yaw, rise, tool_yaw
from envs.fixtures import BOWL_HEIGHT_M
from envs.rotations import Vector
from envs.scene import Scene
from envs.tasks.place_in_bowl import is_in_bowl
from envs.tasks.stack import is_on
from envs.tasks.task import Goal

_CARRY_M = (
    0.075  # height of the object's underside while it travels: over a cube and over the bowl's rim
)
_FUNNEL_SLOPE = 2.5
_RELEASE_GAP_M = 0.004
_RETREAT_M = 0.16


def place_in_bowl(scene: Scene, goal: Goal) -> Action:
    """Returns the next action (7,) of dropping the named object into the bowl."""
    slot = goal.target
    if is_in_bowl(scene, slot) and not scene.is_held(slot):
        return rise(scene, _RETREAT_M, OPEN)
    if not scene.is_held(slot):
        return grasp(scene, slot)
    rest = scene.fixture_position("bowl")
    rest[2] = BOWL_HEIGHT_M + scene.objects[slot].geometry.half_height_m
    return _carry(scene, slot, rest, tool_yaw(scene), tolerance_m=0.015)


def stack(scene: Scene, goal: Goal) -> Action:
    """Returns the next action (7,) of setting the named cube on the other one."""
    slot = goal.target
    if is_on(scene, slot, goal.reference) and not scene.is_held(slot):
        return rise(scene, _RETREAT_M, OPEN)
    if not scene.is_held(slot):
        return grasp(scene, slot)
    rest = scene.object_position(goal.reference)
    rest[2] += 2 * scene.objects[slot].geometry.half_height_m
    yaw = nearest_yaw(
        scene, scene.object_yaw(goal.reference), scene.objects[slot].geometry.symmetry_rad
    )
    return _carry(scene, slot, rest, yaw, tolerance_m=0.009)


def _carry(scene: Scene, slot: int, rest: Vector, yaw: float, tolerance_m: float) -> Action:
    """Returns the action towards letting the held object go with its centre at `rest` (3,) m.

    Up first, across, and down through a funnel; lets go within `tolerance_m` of the place and a few millimetres of
    the height.
    """
    center = scene.object_position(slot)
    offset = rest - center
    off_xy = float(np.linalg.norm(offset[:2]))
    if off_xy < tolerance_m and -offset[2] < 2 * _RELEASE_GAP_M:
        return move(scene, scene.tool_position, yaw, OPEN)
    low_m = rest[2] + 0.5 * _RELEASE_GAP_M
    high_m = max(rest[2] + 0.02, _CARRY_M + scene.objects[slot].geometry.half_height_m)
    height = min(high_m, low_m + _FUNNEL_SLOPE * max(off_xy - 0.5 * tolerance_m, 0.0))
    if center[2] < height - 0.03:
        return rise(scene, scene.tool_position[2] + height - center[2], CLOSED)
    waypoint = scene.tool_position + offset
    waypoint[2] = scene.tool_position[2] + height - center[2]
    return move(scene, waypoint, yaw, CLOSED)
