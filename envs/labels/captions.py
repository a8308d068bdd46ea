"""Sentences that say what a picture shows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from envs.labels.phrases import is_named_alone
from envs.labels.questions import OPEN_DRAWER_M
from envs.labels.relations import RELATIONS, relate
from envs.labels.seen import Thing, View
from envs.labels.wording import RELATION_WORDS


def captions(view: View, rng: np.random.Generator) -> list[str]:
    """Returns sentences that are true of the picture: all it shows, the order from left to right, one relation."""
    things = [thing for thing in view.clear if thing.name not in ("gripper", "drawer")]
    if not things:
        return ["an empty table"]
    order = [things[int(index)] for index in rng.permutation(len(things))]
    states = _states(view)
    found = [_listed([_described(thing) for thing in order] + states)]
    in_row = _in_row(view, things)
    if in_row:
        row = ", ".join(f"a {thing.name}" for thing in in_row)
        found.append(f"from left to right: {row}")
    pair = _related(view, things, rng)
    if pair:
        found.append(pair)
    if len(view.objects) > 1 and all(thing.is_clear for thing in view.objects):
        found.append(
            f"{len(view.objects)} objects: {_listed([f'a {thing.name}' for thing in order if thing.is_object])}"
        )
    return found


def _described(thing: Thing) -> str:
    where = {"table": "", "bowl": " in the bowl", "gripper": " in the gripper"}
    return f"a {thing.name}{where.get(thing.support, f' on the {thing.support}')}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _states(view: View) -> list[str]:
    if view.drawer_opening_m is None or view.clear_fixture("drawer") is None:
        return []
    return ["an open drawer" if view.drawer_opening_m >= OPEN_DRAWER_M else "a closed drawer"]


def _in_row(view: View, things: list[Thing]) -> list[Thing]:
    """Returns the things from left to right, or nothing where two of them cannot be told apart that way."""
    if len(things) < 2:
        return []
    row = sorted(things, key=lambda thing: thing.box[1] + thing.box[3])
    pairs = pairwise(row)
    return row if all(relate(view, "left", a, b) for a, b in pairs) else []


def _related(view: View, things: list[Thing], rng: np.random.Generator) -> str:
    pairs = [
        (a, relation, b)
        for a in things
        for b in things
        if a is not b and is_named_alone(view, a) and is_named_alone(view, b)
        for relation in RELATIONS
        if relate(view, relation, a, b)
    ]
    if not pairs:
        return ""
    a, relation, b = pairs[int(rng.integers(len(pairs)))]
    words = RELATION_WORDS[relation].train
    return f"a {a.name} {words[int(rng.integers(len(words)))]} a {b.name}"
