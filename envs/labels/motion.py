"""Clips whose questions no single frame answers: what moves, which way, how fast.

Why no frame tells: where a path lies is drawn before which way along it the object goes, and every condition that a
clip has to meet looks at all its frames alike. So a clip and the same clip backwards are equally likely; they hold the
same frames and have opposite answers. What moves, and how fast, is dealt out among objects drawn alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from envs.arms import HOME_JOINTS, HOME_ROTATION, MAX_GRIP_WIDTH_M
from envs.fixtures import DRAWER_TRAVEL_M
from envs.labels.captions import captions
from envs.labels.labelled import LabelledScene, label
from envs.labels.phrases import is_named_alone, named
from envs.labels.questions import Fact, shuffled, yes_no
from envs.labels.seen import Thing, View
from envs.labels.studio import Camera, Size, Studio, retried
from envs.labels.views import draw_camera
from envs.labels.wording import MOTION_WORDS
from envs.objects import COLORS, ObjectSpec, Shape
from envs.rotations import Vector

FASTER = 1.8  # times as fast, from which "which is faster" is asked
_DIRECTIONS = ("left", "right", "front", "behind")
_LENGTH_M = (0.055, 0.12)  # of the path of the fastest object
_SLOWER = (0.3, 1 / FASTER)  # share of that which a second one goes
_VARIANT_ODDS = {"one": 0.42, "two": 0.28, "drawer": 0.16, "gripper": 0.14}
_LOW_M, _HIGH_M = np.array([0.38, -0.15]), np.array([0.60, 0.15])
_SEPARATION_M, _TRIES = 0.062, 60
_MIN_SHOWN_M = 0.26  # of table, from top to bottom: paths have to fit in
_CLEAR_MOVE = 0.35  # of an object's own size that its middle has to cross in the picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What happens in a clip.

    Attributes:
        specs: the objects, by slot.
        yaws: (objects,) rad.
        places: (T, objects, 2) m.
        directions: (objects,) one of left, right, front, behind, or "" for an object at rest.
        lengths: (objects,) m, of their paths.
        opening_m: (T,) how far the drawer is out; None without a cabinet.
        grip_m: (T,) width of the gripper.
        tool_m: (3,) m, where it is.
        cabinet: (3,) x, y in m and yaw in rad.
    """

    specs: tuple[ObjectSpec, ...]
    yaws: NDArray[np.float64]
    places: NDArray[np.float64]
    directions: tuple[str, ...]
    lengths: tuple[float, ...]
    opening_m: NDArray[np.float64] | None
    grip_m: NDArray[np.float64]
    tool_m: Vector
    cabinet: Vector

    @property
    def num_frames(self) -> int:
        return len(self.places)

    def reversed(self) -> Plan:
        """Returns the same clip backwards."""
        mirrored = {"left": "right", "right": "left", "front": "behind", "behind": "front", "": ""}
        return replace(
            self,
            places=self.places[::-1],
            directions=tuple(mirrored[direction] for direction in self.directions),
            opening_m=None if self.opening_m is None else self.opening_m[::-1],
            grip_m=self.grip_m[::-1],
        )


def draw_clip(studio: Studio, seed: int, rng: np.random.Generator) -> LabelledScene:
    """Returns a clip and questions about its motion."""
    size = studio.draw_size(rng)

    def draw() -> tuple[Plan, Camera, list[View], list[Fact]]:
        studio.draw_looks(rng)
        plan, name, camera = draw_plan(studio, size, rng)
        views = watch(studio, size, plan, name, camera)
        return plan, camera, views, motion_facts(plan, views, rng)

    plan, camera, views, found = retried(draw, lambda drawn: bool(drawn[-1]))
    frames = film(studio, size, plan, camera)
    said = motion_captions(plan, views) + captions(views[-1], rng)[:1]
    return label(seed, "clip", frames, views[-1], shuffled(found, rng), said, rng)


def draw_plan(studio: Studio, size: Size, rng: np.random.Generator) -> tuple[Plan, str, Camera]:
    """Returns a plan and a camera; which way things go along their paths is drawn last."""
    cfg = studio.cfg
    weights = {name: weight for name, weight in cfg.cameras.items() if name != "wrist"}
    variant = str(rng.choice(list(_VARIANT_ODDS), p=list(_VARIANT_ODDS.values())))
    num_frames = int(rng.integers(cfg.min_frames, cfg.max_frames + 1))
    count = min(cfg.max_objects, int(rng.integers(2, 5)))
    movers = {"one": 1, "two": min(2, count)}.get(variant, 0)
    names = [(shape, color) for shape in Shape for color in COLORS]
    picked = rng.choice(len(names), size=count, replace=False)
    specs = [ObjectSpec(shape=names[int(i)][0], color=names[int(i)][1]) for i in picked]
    cabinet = np.array([0.33, rng.uniform(-0.08, 0.08), rng.uniform(-0.3, 0.3)])
    tool = rng.uniform([0.36, -0.14, 0.12], [0.50, 0.14, 0.24])
    drawer = _span(rng, DRAWER_TRAVEL_M, num_frames)
    grip = _span(rng, MAX_GRIP_WIDTH_M, num_frames)
    plan = Plan(
        specs=tuple(specs),
        yaws=rng.uniform(-math.pi, math.pi, count),
        places=np.zeros((num_frames, count, 2)),
        directions=("",) * count,
        lengths=(0.0,) * count,
        opening_m=drawer if variant == "drawer" else None,
        grip_m=grip if variant == "gripper" else np.full(num_frames, grip[0]),
        tool_m=tool,
        cabinet=cabinet,
    )
    plan = _with_paths(plan, movers, (0.0, 0.0), rng)
    _arrange(studio, plan)
    name, camera = retried(
        lambda: draw_camera(
            studio.scene, weights or {"zoom": 1.0}, studio.randomization, size[1] / size[0], rng
        ),
        lambda drawn: _shown_m(drawn[1]) > _MIN_SHOWN_M,
    )
    viewpoint = studio.viewpoint(size, camera)
    forward = -viewpoint.rotation[:2, 2] / np.hypot(*viewpoint.rotation[:2, 2])
    plan = _with_paths(plan, movers, (float(forward[0]), float(forward[1])), rng)
    return (plan.reversed() if rng.random() < 0.5 else plan), name, camera


def motion_facts(plan: Plan, views: list[View], rng: np.random.Generator) -> list[Fact]:
    """Returns questions about the motion of things that every frame shows clearly."""
    shown = [
        slot
        for slot, spec in enumerate(plan.specs)
        if all(_clear(view, spec.name) is not None for view in views)
    ]
    moving = [slot for slot, direction in enumerate(plan.directions) if direction]
    if any(slot not in shown or not _is_seen_to_move(plan, slot, views) for slot in moving):
        return []
    found: list[Fact] = []
    for slot in moving:
        words = MOTION_WORDS[plan.directions[slot]]
        slots = {"thing": named(_thing(views[-1], plan, slot))}
        found.append(Fact(key="motion_direction", answer=words, slots=slots))
    if len(moving) == 1:
        found.append(Fact(key="motion_which", answer=plan.specs[moving[0]].name, slots={}))
    if len(moving) == 2:
        a, b = (moving[int(i)] for i in rng.permutation(2))
        faster = a if plan.lengths[a] > plan.lengths[b] else b
        slots = {
            "thing": named(_thing(views[-1], plan, a)),
            "other": named(_thing(views[-1], plan, b)),
        }
        found.append(Fact(key="motion_faster", answer=plan.specs[faster].name, slots=slots))
    for group in (moving, [slot for slot in shown if slot not in moving]):
        if group:
            slot = group[int(rng.integers(len(group)))]
            slots = {"thing": named(_thing(views[-1], plan, slot))}
            found.append(Fact(key="motion_moving", answer=yes_no(slot in moving), slots=slots))
    return found + _part_facts(plan, views)


def motion_captions(plan: Plan, views: list[View]) -> list[str]:
    """Returns a sentence on the motion."""
    said = [
        f"the {spec.name} moves {MOTION_WORDS[direction]}"
        for spec, direction in zip(plan.specs, plan.directions, strict=True)
        if direction and all(_clear(view, spec.name) is not None for view in views)
    ]
    said += [f"the {word} {fact.answer}s" for fact in _part_facts(plan, views)
             for word in (fact.key.removeprefix("motion_"),)]  # fmt: skip
    return [" and ".join(said)] if said else ["nothing moves"]


def watch(studio: Studio, size: Size, plan: Plan, name: str, camera: Camera) -> list[View]:
    """Returns the view of every frame."""
    _arrange(studio, plan)
    views = []
    for frame in range(plan.num_frames):
        _pose(studio, plan, frame)
        views.append(studio.look(size, name, camera, {}))
    return views


def film(studio: Studio, size: Size, plan: Plan, camera: Camera) -> NDArray[np.uint8]:
    """Returns (T, H, W, 3) uint8."""
    _arrange(studio, plan)
    frames = []
    for frame in range(plan.num_frames):
        _pose(studio, plan, frame)
        frames.append(studio.photograph(size, camera))
    return np.stack(frames)


def _part_facts(plan: Plan, views: list[View]) -> list[Fact]:
    """Returns which way drawer or gripper go, if they do and all frames show it."""
    found = []
    parts = [("gripper", plan.grip_m)]
    if plan.opening_m is not None:
        parts.append(("drawer", plan.opening_m))
    for part, widths in parts:
        if widths[0] != widths[-1] and all(_clear(view, part) is not None for view in views):
            answer = "open" if widths[-1] > widths[0] else "close"
            found.append(Fact(key=f"motion_{part}", answer=answer, slots={}))
    return found


def _with_paths(
    plan: Plan, movers: int, forward: tuple[float, float], rng: np.random.Generator
) -> Plan:
    """Returns the plan with paths along or across `forward`, clear of each other and of the fixtures."""
    ahead = np.array(forward)
    right = np.array([ahead[1], -ahead[0]])
    count, num_frames = len(plan.specs), plan.num_frames
    directions = [""] * count
    lengths = [0.0] * count
    times = np.linspace(-0.5, 0.5, num_frames)
    places = np.zeros((num_frames, count, 2))
    order = rng.permutation(count)
    for number, slot in enumerate(order):
        if number < movers:
            longest = rng.uniform(*_LENGTH_M) if number == 0 else max(lengths)
            lengths[slot] = longest if number == 0 else longest * rng.uniform(*_SLOWER)
            directions[slot] = _DIRECTIONS[int(rng.integers(4))]
        step = {"right": right, "left": -right, "behind": ahead, "front": -ahead}
        along = step[directions[slot]] * lengths[slot] if directions[slot] else np.zeros(2)
        done = [places[:, other] for other in order[:number]]
        for middle in rng.uniform(_LOW_M, _HIGH_M, (_TRIES, 2)):
            places[:, slot] = middle + times[:, None] * along
            if _is_free(plan, places[:, slot], done):
                break
    return replace(plan, places=places, directions=tuple(directions), lengths=tuple(lengths))


def _is_free(plan: Plan, path: NDArray[np.float64], others: list[NDArray[np.float64]]) -> bool:
    """Whether a path keeps clear of the whole of every other path, and of cabinet and drawer."""
    if plan.opening_m is not None:
        x, y, yaw = plan.cabinet
        ahead = np.array([math.cos(yaw), math.sin(yaw)])
        for distance in (0.0, 0.12, 0.24):
            if np.linalg.norm(path - (np.array([x, y]) + distance * ahead), axis=1).min() < 0.14:
                return False
    return all(
        np.linalg.norm(path[:, None] - other[None], axis=2).min() >= _SEPARATION_M
        for other in others
    )


def _span(rng: np.random.Generator, travel_m: float, num_frames: int) -> NDArray[np.float64]:
    """Returns (T,) an even way from one opening to a wider one."""
    low = rng.uniform(0.0, 0.35) * travel_m
    high = low + rng.uniform(0.45, 0.65) * travel_m
    return np.linspace(low, high, num_frames, dtype=np.float64)


def _arrange(studio: Studio, plan: Plan) -> None:
    scene = studio.scene
    joints = studio.kinematics.solve(HOME_JOINTS, plan.tool_m, HOME_ROTATION, max_iterations=30)
    scene.clear(joints)
    if plan.opening_m is not None:
        scene.show_fixture("cabinet", plan.cabinet[:2], float(plan.cabinet[2]))
    for slot, spec in enumerate(plan.specs):
        scene.add_object(spec, plan.places[0, slot], float(plan.yaws[slot]))
    _pose(studio, plan, 0)


def _pose(studio: Studio, plan: Plan, frame: int) -> None:
    scene = studio.scene
    for slot, spec in enumerate(plan.specs):
        place = np.array([*plan.places[frame, slot], spec.geometry.half_height_m])
        scene.place_object(slot, place, float(plan.yaws[slot]))
    scene.open_gripper(float(plan.grip_m[frame]))
    if plan.opening_m is not None:
        scene.open_drawer(float(plan.opening_m[frame]))
    scene.settle()


def _is_seen_to_move(plan: Plan, slot: int, views: list[View]) -> bool:
    """Whether the picture shows the move: the box goes the way it should, far enough."""
    name = plan.specs[slot].name
    first, last = _clear(views[0], name), _clear(views[-1], name)
    if first is None or last is None or first.is_cut or last.is_cut:
        return False
    (a0, b0, a1, b1), (c0, d0, c1, d1) = first.box, last.box
    across, down = 0.5 * (d0 + d1 - b0 - b1), 0.5 * (c0 + c1 - a0 - a1)
    if plan.directions[slot] in ("left", "right"):
        moved, size = across, 0.5 * (b1 - b0 + d1 - d0)
        is_along = abs(across) * views[0].viewpoint.aspect > 1.5 * abs(down)
    else:
        moved, size = down, 0.5 * (a1 - a0 + c1 - c0)
        is_along = abs(down) > 1.5 * abs(across) * views[0].viewpoint.aspect
    sign = 1 if plan.directions[slot] in ("right", "front") else -1
    return is_along and moved * sign >= _CLEAR_MOVE * size


def _clear(view: View, name: str) -> Thing | None:
    return next((thing for thing in view.clear if thing.name == name), None)


def _thing(view: View, plan: Plan, slot: int) -> Thing:
    thing = _clear(view, plan.specs[slot].name)
    assert thing is not None
    assert is_named_alone(view, thing)
    return thing


def _shown_m(camera: Camera) -> float:
    """Returns how much of the table a free camera shows from top to bottom, m; the front camera shows enough."""
    if isinstance(camera, str):
        return math.inf
    return 2 * camera.distance_m * math.tan(0.5 * math.radians(camera.field_of_view_deg))
