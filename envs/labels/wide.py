"""Pictures that lose their meaning when squeezed into a square: cards of all proportions, and rows with two ends.

Wide, tall and square pictures are mixed, and cards lie alone on a plain table: once squeezed, a square card in a wide
picture looks like a tall one in a square picture, and nothing beside it tells.
"""

from __future__ import annotations

import math

import numpy as np

from envs.arms import HOME_JOINTS, HOME_ROTATION
from envs.cameras import FreeCamera
from envs.labels.arrange import AWAY_M, draw_specs
from envs.labels.captions import captions
from envs.labels.labelled import LabelledScene, label
from envs.labels.phrases import expressions
from envs.labels.questions import Fact, attribute_facts, facts, shuffled, yes_no
from envs.labels.relations import extreme
from envs.labels.seen import View
from envs.labels.studio import Camera, Size, Studio, retried
from envs.labels.wording import EXTREME_WORDS
from envs.objects import COLORS, ObjectSpec, Shape

MIN_RATIO = 1.2  # of sides, from which a card is wider than tall (or taller than wide)
MAX_SQUARE_RATIO = 1.06  # of sides, up to which a card is a square
_CARD_ODDS, _SQUARE_ODDS = 0.5, 0.34
_RATIOS, _SHORT_SIDE_M, _THICKNESS_M = (1.3, 2.6), (0.022, 0.045), 0.0006
_CARD_TURN_RAD = 0.03  # against the picture's edges
_ROW_LOW_M, _ROW_HIGH_M = np.array([0.40, -0.33]), np.array([0.58, 0.33])
_ROW_GAP_M = 0.075


def draw_wide(studio: Studio, seed: int, rng: np.random.Generator) -> LabelledScene:
    """Returns a picture of cards seen from above, or of a row of objects seen whole."""
    size = studio.draw_size(rng)
    has_cards = bool(rng.random() < _CARD_ODDS)

    def draw() -> tuple[View, Camera, list[Fact]]:
        studio.draw_looks(rng)
        view, camera = (_cards if has_cards else _row)(studio, size, rng)
        return view, camera, card_facts(view, rng) if has_cards else end_facts(view)

    view, camera, asked = retried(draw, lambda drawn: bool(drawn[-1]))
    frame = studio.photograph(size, camera)
    others = attribute_facts(view, rng) if has_cards else shuffled(facts(view, rng), rng)[:4]
    return label(
        seed,
        "still",
        frame[None],
        view,
        shuffled(asked, rng)[:4] + others,
        captions(view, rng),
        rng,
    )


def card_facts(view: View, rng: np.random.Generator) -> list[Fact]:
    """Returns questions about the proportions of every whole card, measured in pixels of the picture."""
    found = []
    for thing in view.clear:
        if thing.shape != "card" or thing.is_cut:
            continue
        y0, x0, y1, x1 = thing.box
        ratio = (x1 - x0) * thing.mask.shape[1] / ((y1 - y0) * thing.mask.shape[0])
        choices = expressions(view, thing)
        if not choices:
            continue
        slots = {"thing": choices[int(rng.integers(len(choices)))]}
        is_square = max(ratio, 1 / ratio) <= MAX_SQUARE_RATIO
        if max(ratio, 1 / ratio) >= MIN_RATIO:
            found.append(Fact(key="wide_card", answer=yes_no(ratio > 1), slots=slots))
        if is_square or (max(ratio, 1 / ratio) >= MIN_RATIO and rng.random() < 0.5):
            found.append(Fact(key="wide_square", answer=yes_no(is_square), slots=slots))
    return found


def end_facts(view: View) -> list[Fact]:
    """Returns whether the things at two opposite ends share colour or shape, where the ends are clear."""
    things = list(view.objects)
    found = []
    for one, two in (("left", "right"), ("front", "behind")):
        a, b = extreme(view, one, things), extreme(view, two, things)
        if a is None or b is None:
            continue
        words = {"one": EXTREME_WORDS[one], "two": EXTREME_WORDS[two]}
        for quality in ("color", "shape"):
            answer = yes_no(getattr(a, quality) == getattr(b, quality))
            found.append(Fact(key="wide_ends", answer=answer, slots={**words, "quality": quality}))
    return found


def _cards(studio: Studio, size: Size, rng: np.random.Generator) -> tuple[View, Camera]:
    scene, aspect = studio.scene, size[1] / size[0]
    _clear_table(studio)
    studio.plain_table()
    azimuth = 180.0 if aspect >= 1.0 else 90.0  # the arm stays beside the picture's long side
    camera = FreeCamera(
        target_m=(0.56, 0.0, 0.0),
        distance_m=float(rng.uniform(0.42, 0.52)),
        azimuth_deg=azimuth,
        elevation_deg=float(rng.uniform(-90.0, -86.0)),
        field_of_view_deg=30.0
        if aspect >= 1.0
        else 2 * math.degrees(math.atan(math.tan(math.radians(15.0)) / aspect)),
    )
    short = 2 * camera.distance_m * math.tan(math.radians(15.0))  # of table, along the short side
    reach = 0.5 * short * np.array([1.0, max(aspect, 1 / aspect)]) - 0.04
    colors = rng.permutation(list(COLORS))[: int(rng.integers(2, 5))]
    taken: list[np.ndarray] = []
    for color in colors:
        place = _free(rng, reach, taken)
        if place is None:
            continue
        taken.append(place)
        half, turn = _card_sides(rng), float(rng.uniform(-1, 1)) * _CARD_TURN_RAD
        spec = ObjectSpec(shape=Shape.BLOCK, color=str(color))
        slot = scene.add_object(spec, place + np.array([0.56, 0.0]), turn)
        scene.resize_object(slot, half if aspect >= 1.0 else half[[1, 0, 2]])
        scene.place_object(slot, np.array([place[0] + 0.56, place[1], _THICKNESS_M]), turn)
    scene.settle()
    shapes = dict.fromkeys(range(len(scene.objects)), "card")
    return studio.look(size, "above", camera, {}, shapes), camera


def _card_sides(rng: np.random.Generator) -> np.ndarray:
    """Returns (3,) m half sizes along the picture's upright, its level and the vertical."""
    short = rng.uniform(*_SHORT_SIDE_M)
    long = short * math.exp(rng.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
    is_wide, is_square = rng.random() < 0.5, rng.random() < _SQUARE_ODDS
    if is_square:
        side = math.sqrt(short * long)
        upright, level = side, side
    else:
        upright, level = (short, long) if is_wide else (long, short)
    return np.array([0.5 * upright, 0.5 * level, _THICKNESS_M])


def _free(
    rng: np.random.Generator, reach: np.ndarray, taken: list[np.ndarray]
) -> np.ndarray | None:
    tries = rng.uniform(-reach, reach, (60, 2))
    for place in tries:
        if all(np.abs(place - other).max() > 0.085 for other in taken):
            return place
    return None


def _row(studio: Studio, size: Size, rng: np.random.Generator) -> tuple[View, Camera]:
    """Spreads objects along the picture's long side, all of two colours."""
    scene, aspect = studio.scene, size[1] / size[0]
    _clear_table(studio)
    pair = rng.permutation(list(COLORS))[:2]
    specs = draw_specs(rng, studio.cfg.max_objects)
    specs += draw_specs(rng, 1)[: max(0, 2 - len(specs))]
    stretch = np.array([1.0, min(1.0, 0.5 * max(aspect, 1 / aspect))])
    middle = 0.5 * (_ROW_LOW_M + _ROW_HIGH_M)
    low, high = (middle + stretch * (edge - middle) for edge in (_ROW_LOW_M, _ROW_HIGH_M))
    taken: list[np.ndarray] = []
    for spec in specs:
        tries = rng.uniform(low, high, (60, 2))
        apart = [min((np.linalg.norm(p - q) for q in taken), default=1.0) for p in tries]
        place = tries[int(np.argmax(np.array(apart) > _ROW_GAP_M))]
        taken.append(place)
        color = str(pair[int(rng.integers(2))])
        yaw = float(rng.uniform(-math.pi, math.pi))
        scene.add_object(ObjectSpec(shape=spec.shape, color=color), place, yaw)
    scene.settle()
    shown = rng.uniform(0.34, 0.40)  # of table, along the short side
    opening = rng.uniform(28.0, 42.0)
    distance = 0.5 * shown / min(1.0, aspect) / math.tan(0.5 * math.radians(opening))
    camera = FreeCamera(
        target_m=(float(middle[0]), 0.0, 0.02),
        distance_m=distance * (1.6 if 0.7 < aspect < 1.4 else 1.0),
        azimuth_deg=(180.0 if aspect >= 1.0 else 90.0) + float(rng.uniform(-12, 12)),
        elevation_deg=float(rng.uniform(-65.0, -45.0)),
        field_of_view_deg=float(opening),
    )
    return studio.look(size, "zoom", camera, {}), camera


def _clear_table(studio: Studio) -> None:
    joints = studio.kinematics.solve(HOME_JOINTS, AWAY_M, HOME_ROTATION, max_iterations=30)
    studio.scene.clear(joints)
