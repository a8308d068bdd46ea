"""Random tables to look at: objects on the table, in a bowl, on each other or in the hand."""

from __future__ import annotations

import math

import numpy as np

from envs.arms import HOME_JOINTS, HOME_ROTATION, MAX_GRIP_WIDTH_M
from envs.fixtures import BOWL_OUTER_RADIUS_M, DRAWER_TRAVEL_M
from envs.kinematics import ArmKinematics
from envs.labels.questions import CLOSED_DRAWER_M, OPEN_DRAWER_M
from envs.objects import COLORS, ObjectSpec, Shape
from envs.rotations import Vector, from_rpy
from envs.scene import Scene
from envs.tasks.layout import SEPARATION_M, Layout

# How often a table has a fixture, and each special place given that it can.
_FIXTURE_ODDS = {"": 0.42, "bowl": 0.26, "zone": 0.12, "cabinet": 0.20}
_IN_BOWL_ODDS, _STACKED_ODDS, _HELD_ODDS, _OPEN_ODDS, _TWINS_ODDS = 0.5, 0.3, 0.28, 0.5, 0.25
_NUM_OBJECTS_ODDS = np.array([0.10, 0.22, 0.28, 0.25, 0.15])
_TOOL_LOW_M, _TOOL_HIGH_M = np.array([0.34, -0.20, 0.07]), np.array([0.58, 0.20, 0.30])
_MAX_TOOL_YAW_RAD = 0.8
AWAY_M = np.array([0.30, 0.0, 0.40])  # the tool where it hides nothing on the table
_OBJECT_SEPARATION_M = 0.065  # nearer than a task allows: nothing has to be grasped here
_IN_BOWL_RADIUS_M = 0.03


def arrange(
    scene: Scene,
    kinematics: ArmKinematics,
    max_objects: int,
    rng: np.random.Generator,
    *,
    is_arm_away: bool = False,
) -> dict[int, str]:
    """Fills the table and poses the arm; returns what objects lie in or on, by slot, where it is not the table."""
    position = AWAY_M if is_arm_away else rng.uniform(_TOOL_LOW_M, _TOOL_HIGH_M)
    yaw = float(rng.uniform(-_MAX_TOOL_YAW_RAD, _MAX_TOOL_YAW_RAD))
    rotation = from_rpy(0.0, 0.0, yaw) @ HOME_ROTATION
    scene.clear(kinematics.solve(HOME_JOINTS, position, rotation, max_iterations=30))
    scene.open_gripper([MAX_GRIP_WIDTH_M, 0.0][int(rng.integers(2))])
    fixture = str(rng.choice(list(_FIXTURE_ODDS), p=list(_FIXTURE_ODDS.values())))
    layout = Layout(scene, rng)
    bowl = _stand_fixture(scene, layout, fixture, rng)
    specs = draw_specs(rng, max_objects)
    supports: dict[int, str] = {}
    if not is_arm_away and rng.random() < _HELD_ODDS:
        slot = _hold(scene, specs[0], yaw)
        supports[slot] = "gripper"
    elif bowl is not None and rng.random() < _IN_BOWL_ODDS and specs[0].shape is not Shape.BLOCK:
        angle, radius = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.0, _IN_BOWL_RADIUS_M)
        place = bowl + radius * np.array([math.cos(angle), math.sin(angle)])
        supports[scene.add_object(specs[0], place, rng.uniform(-math.pi, math.pi))] = "bowl"
    for spec in specs[len(scene.objects) :]:
        place = layout.free_place(clearance_m=_OBJECT_SEPARATION_M)
        layout.reserve(place, _OBJECT_SEPARATION_M)
        scene.add_object(spec, place, rng.uniform(-math.pi, math.pi))
    if len(specs) > 2 and rng.random() < _STACKED_ODDS:
        _stack(scene, supports)
    scene.settle()
    for slot, support in supports.items():
        if support == "gripper":  # the tool's place is known only now
            scene.place_object(slot, scene.tool_position, yaw)
            scene.settle()
    return supports


def draw_specs(rng: np.random.Generator, max_objects: int) -> list[ObjectSpec]:
    """Returns one to `max_objects` objects of a few colours: shape or colour alone rarely tells them apart."""
    odds = _NUM_OBJECTS_ODDS[:max_objects] / _NUM_OBJECTS_ODDS[:max_objects].sum()
    count = 1 + int(rng.choice(len(odds), p=odds))
    palette = rng.permutation(list(COLORS))[: int(rng.integers(2, len(COLORS) + 1))]
    everything = [ObjectSpec(shape=shape, color=str(color)) for shape in Shape for color in palette]
    has_twins = rng.random() < _TWINS_ODDS
    picked = rng.choice(len(everything), size=count, replace=has_twins)
    return [everything[int(index)] for index in picked]


def _stand_fixture(
    scene: Scene, layout: Layout, fixture: str, rng: np.random.Generator
) -> Vector | None:
    """Puts the fixture on the table; returns where the bowl stands, if it is one."""
    if fixture == "bowl":
        place = layout.free_place(np.array([0.40, -0.15]), np.array([0.58, 0.15]))
        layout.reserve(place, BOWL_OUTER_RADIUS_M + 0.5 * SEPARATION_M)
        scene.show_fixture("bowl", place)
        return place
    if fixture == "zone":
        place = layout.free_place(np.array([0.42, -0.14]), np.array([0.57, 0.14]))
        scene.show_fixture("zone", place, rng.uniform(-math.pi, math.pi))
        layout.reserve(place, 0.11)
    elif fixture == "cabinet":
        place = layout.free_place(np.array([0.30, -0.12]), np.array([0.36, 0.12]))
        yaw = rng.uniform(-0.35, 0.35) - 0.5 * place[1]
        scene.show_fixture("cabinet", place, yaw)
        ahead = np.array([math.cos(yaw), math.sin(yaw)])
        for distance, clearance in ((0.0, 0.16), (0.12, 0.15), (0.24, 0.14)):
            layout.reserve(place + distance * ahead, clearance)
        is_open = rng.random() < _OPEN_ODDS
        low, high = (OPEN_DRAWER_M, DRAWER_TRAVEL_M) if is_open else (0.0, CLOSED_DRAWER_M)
        scene.open_drawer(rng.uniform(low, high))
    return None


def _hold(scene: Scene, spec: ObjectSpec, yaw: float) -> int:
    slot = scene.add_object(spec, np.array([0.5, 0.0]), yaw)
    scene.open_gripper(spec.geometry.grip_width_m)
    return slot


def _stack(scene: Scene, supports: dict[int, str]) -> None:
    """Puts the last object on the one before it, where both are at rest on the table and shaped for it."""
    top, base = len(scene.objects) - 1, len(scene.objects) - 2
    below, above = scene.objects[base], scene.objects[top]
    if {top, base} & set(supports) or below.shape is Shape.BLOCK or above.name == below.name:
        return
    place, yaw = scene.object_place(base), scene.object_place(top)[3]
    height = 2 * below.geometry.half_height_m + above.geometry.half_height_m
    scene.place_object(top, np.array([*place[:2], height]), yaw)
    supports[top] = below.name
