"""How things in a picture stand to each other: yes, no, or too close to call (None)."""

from __future__ import annotations

import numpy as np

from envs.labels.seen import Thing, View

RELATIONS = ("left", "right", "front", "behind")
_MIRRORED = {"right": "left", "behind": "front"}
SIDE_MARGIN = 0.6  # of the mean width of the two boxes, between their middles
DEPTH_MARGIN_M = 0.02  # of table between the footprints, added to half their radii
ROW_MARGIN = 0.04  # of the picture's height, between the lower edges: nearer things stand lower
SAME_PLACE = ("gripper", "drawer")  # never one side of a relation: too many parts, or a part


def relate(view: View, relation: str, a: Thing, b: Thing) -> bool | None:
    """Returns whether `a` is left of, right of, in front of or behind `b` as the picture shows them.

    Left and right are the picture's; in front means nearer to the camera along the table. None where a person
    might see it either way: within the margins, one inside or on the other, or not standing on the table.
    """
    if relation in _MIRRORED:
        return relate(view, _MIRRORED[relation], b, a)
    key = relation, id(a), id(b)
    if key not in view.held:
        view.held[key] = _relate(view, relation, a, b)
    return view.held[key]


def _relate(view: View, relation: str, a: Thing, b: Thing) -> bool | None:
    if not (a.is_clear and b.is_clear) or is_joined(a, b):
        return None
    if a.name in SAME_PLACE or b.name in SAME_PLACE:
        return None
    return _is_left(a, b) if relation == "left" else _is_in_front(view, a, b)


def is_joined(a: Thing, b: Thing) -> bool:
    """Whether one lies in or on the other."""
    return a.support == b.name or b.support == a.name


def extreme(view: View, relation: str, candidates: list[Thing]) -> Thing | None:
    """Returns the candidate that stands in `relation` to all others, None where none clearly does."""
    for thing in candidates:
        others = [other for other in candidates if other is not thing]
        if others and all(relate(view, relation, thing, other) for other in others):
            return thing
    return None


def _is_left(a: Thing, b: Thing) -> bool | None:
    (_, a0, _, a1), (_, b0, _, b1) = a.box, b.box
    distance = 0.5 * (b0 + b1 - a0 - a1)
    margin = SIDE_MARGIN * 0.5 * (a1 - a0 + b1 - b0)
    return None if abs(distance) < margin else distance > 0


def _is_in_front(view: View, a: Thing, b: Thing) -> bool | None:
    if view.camera in ("wrist", "above") or a.support != "table" or b.support != "table":
        return None  # from above, or off the table, "in front" has no one meaning
    if a.is_cut or b.is_cut:
        return None
    forward = -view.viewpoint.rotation[:2, 2]
    forward = forward / max(1e-6, float(np.hypot(*forward)))
    nearer = float((b.position[:2] - a.position[:2]) @ forward)
    eye = view.viewpoint.position
    closer = float(np.linalg.norm(b.position - eye) - np.linalg.norm(a.position - eye))
    lower = a.box[2] - b.box[2]
    if abs(nearer) < DEPTH_MARGIN_M + 0.5 * (a.radius_m + b.radius_m) or abs(lower) < ROW_MARGIN:
        return None
    return nearer > 0 if (nearer > 0) == (lower > 0) == (closer > 0) else None
