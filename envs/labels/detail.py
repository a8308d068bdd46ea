"""Pictures whose questions a few pixels decide: dots on the objects' tops, one, two or three with equal ink."""

from __future__ import annotations

import math

import numpy as np

from envs.cameras import Mark
from envs.labels.arrange import arrange
from envs.labels.captions import captions
from envs.labels.labelled import LabelledScene, label
from envs.labels.phrases import expressions, is_named_alone
from envs.labels.questions import Fact, facts, shuffled
from envs.labels.seen import Thing, View
from envs.labels.studio import Camera, Size, Studio, retried
from envs.labels.views import draw_zoom

MAX_DOTS = 3
DOT_RADIUS_PX = 2.8  # of a single dot, at REFERENCE_PX; several dots share its area, so that blur leaves no hint
SPACING_PX = 6.0  # between middles of dots
REFERENCE_PX = (
    224  # height of the picture those are meant for; marks keep their share of other pictures
)
_SHOWN_M, _ELEVATION_DEG = (0.18, 0.30), (-75.0, -48.0)
_DARK, _LIGHT = (0.03, 0.03, 0.03), (0.98, 0.98, 0.98)
_PALE_COLORS = ("yellow", "cyan")


def draw_detail(studio: Studio, seed: int, rng: np.random.Generator) -> LabelledScene:
    """Returns a picture of objects with dots on them, and questions about the dots first."""
    size = studio.draw_size(rng)

    def draw() -> tuple[View, Camera, list[Mark], dict[Thing, int]]:
        view, camera = _arranged(studio, size, rng)
        return view, camera, *draw_dots(studio, view, rng)

    view, camera, marks, dots = retried(draw, lambda drawn: bool(drawn[-1]))
    frame = studio.photograph(size, camera, tuple(marks))
    found = shuffled(dot_facts(view, dots, rng), rng)[:4] + shuffled(facts(view, rng), rng)[:4]
    return label(seed, "still", frame[None], view, found, captions(view, rng), rng)


def dot_facts(view: View, dots: dict[Thing, int], rng: np.random.Generator) -> list[Fact]:
    """Returns questions on how many dots are on an object, and on which object there are that many."""
    found = []
    for thing, count in dots.items():
        choices = expressions(view, thing)
        if choices:
            slots = {"thing": choices[int(rng.integers(len(choices)))]}
            found.append(Fact(key="detail_dots", answer=str(count), slots=slots))
        is_only_one = list(dots.values()).count(count) == 1
        if len(dots) > 1 and is_only_one and is_named_alone(view, thing):
            words = f"{count} dot" if count == 1 else f"{count} dots"
            found.append(Fact(key="detail_which", answer=thing.name, slots={"dots": words}))
    return found


def draw_dots(
    studio: Studio, view: View, rng: np.random.Generator
) -> tuple[list[Mark], dict[Thing, int]]:
    """Returns marks for the tops of all objects whose top shows, and how many dots each has."""
    marks: list[Mark] = []
    dots: dict[Thing, int] = {}
    for thing in view.objects:
        slot = _slot_of(studio, thing)
        count, turn = int(rng.integers(1, MAX_DOTS + 1)), float(rng.uniform(0.0, 2 * math.pi))
        top = thing.position + np.array(
            [0.0, 0.0, studio.scene.objects[slot].geometry.half_height_m]
        )
        found = _dots_at(view, thing, top, count, turn)
        if thing.is_clear and found and _shows(view, thing, found):
            marks += found
            dots[thing] = count
    return marks, dots


def _dots_at(view: View, thing: Thing, top: np.ndarray, count: int, turn: float) -> list[Mark]:
    """Returns `count` dots around the middle of a top face."""
    viewpoint = view.viewpoint
    _, depth = viewpoint.project(top[None])
    pixel_m = (
        2 * depth[0] * math.tan(0.5 * math.radians(viewpoint.field_of_view_deg)) / REFERENCE_PX
    )
    radius, spacing = DOT_RADIUS_PX * pixel_m / math.sqrt(count), SPACING_PX * pixel_m
    ring = 0.0 if count == 1 else 0.5 * spacing / math.sin(math.pi / count)
    angles = turn + 2 * math.pi * np.arange(count) / count
    return [
        Mark(
            position=top + np.array([ring * math.cos(a), ring * math.sin(a), 0.0003]),
            rotation=np.eye(3),
            radius_m=radius,
            rgb=_DARK if thing.color in _PALE_COLORS else _LIGHT,
        )
        for a in angles
    ]


def _shows(view: View, thing: Thing, marks: list[Mark]) -> bool:
    """Whether the dots and a little space around them are on pixels of the object."""
    reach = 2.0 * marks[0].radius_m
    around = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * reach
    points = np.concatenate([mark.position + np.pad(around, ((0, 0), (0, 1))) for mark in marks])
    pixels, _ = view.viewpoint.project(points)
    height, width = thing.mask.shape
    columns = np.floor(pixels[:, 0] * width).astype(int)
    rows = np.floor(pixels[:, 1] * height).astype(int)
    is_inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return bool(is_inside.all() and thing.mask[rows, columns].all())


def _slot_of(studio: Studio, thing: Thing) -> int:
    places = [studio.scene.object_position(slot) for slot in range(len(studio.scene.objects))]
    return int(np.argmin([np.linalg.norm(place - thing.position) for place in places]))


def _arranged(studio: Studio, size: Size, rng: np.random.Generator) -> tuple[View, Camera]:
    studio.draw_looks(rng)
    supports = arrange(
        studio.scene, studio.kinematics, studio.cfg.max_objects, rng, is_arm_away=True
    )
    aspect = size[1] / size[0]
    camera = draw_zoom(studio.scene, studio.randomization, aspect, rng, _SHOWN_M, _ELEVATION_DEG)
    return studio.look(size, "zoom", camera, supports), camera
