"""Experts that end with the tool over an object or the object in the hand."""

from __future__ import annotations

from envs.experts.motion import CLOSED, OPEN, Action, grasp, grasp_yaw, move, rise
from envs.scene import Scene
from envs.tasks.reach import point_above
from envs.tasks.task import Goal

_CARRY_HEIGHT_M = 0.13


def reach(scene: Scene, goal: Goal) -> Action:
    """Returns the next action (7,) towards the point over the named object."""
    return move(scene, point_above(scene, goal.target), grasp_yaw(scene, goal.target), OPEN)


def pick(scene: Scene, goal: Goal) -> Action:
    """Returns the next action (7,) of grasping and lifting the named object."""
    if scene.is_held(goal.target):
        return rise(scene, _CARRY_HEIGHT_M, CLOSED)
    return grasp(scene, goal.target)
