"""Questions about a picture and their answers: asked only where a person could not see it either way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from envs.instructions import Phrasings
from envs.labels.phrases import Expression, expressions, is_named_alone, named, pick
from envs.labels.relations import RELATIONS, extreme, relate
from envs.labels.seen import Thing, View
from envs.labels.wording import EXTREME_WORDS, KINDS, QUESTIONS, RELATION_WORDS
from envs.objects import COLORS, Shape

Slot = str | Expression | Phrasings
OPEN_DRAWER_M = 0.05
CLOSED_DRAWER_M = 0.005
_FIXTURE_NAMES = ("bowl", "drawer")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question in words; `split` says whether the wording occurs in training rows."""

    kind: str
    question: str
    answer: str
    split: str = "train"


@dataclass(frozen=True, kw_only=True, eq=False)
class Fact:
    """A question and its answer before it is put into words; `key` is one of wording.QUESTIONS."""

    key: str
    answer: str
    slots: Mapping[str, Slot]

    def worded(self, rng: np.random.Generator, split: str) -> Question:
        words = {name: _spoken(slot, rng, split) for name, slot in self.slots.items()}
        return Question(
            kind=KINDS.get(self.key, self.key),
            question=pick(QUESTIONS[self.key], rng, split).format(**words),
            answer=self.answer,
            split=split,
        )


def _spoken(slot: Slot, rng: np.random.Generator, split: str) -> str:
    if isinstance(slot, Expression):
        return slot.text(rng, split)
    return pick(slot, rng, split) if isinstance(slot, Phrasings) else slot


def yes_no(is_so: bool) -> str:
    return "yes" if is_so else "no"


def facts(view: View, rng: np.random.Generator) -> list[Fact]:
    """Returns what can be asked about a still picture, about ten questions of mixed kinds."""
    found = _counts(view, rng) + _attributes(view, rng) + _existence(view, rng)
    found += _relations(view, rng) + _sides(view, rng) + _extremes(view, rng)
    return found + _carried(view) + _states(view)


def shuffled(found: list[Fact], rng: np.random.Generator) -> list[Fact]:
    return [found[int(index)] for index in rng.permutation(len(found))]


def attribute_facts(view: View, rng: np.random.Generator) -> list[Fact]:
    """Returns one question about a colour and one about sides, where they can be asked."""
    return [fact for fact in _attributes(view, rng) if fact.key == "color"] + _sides(view, rng)


def _counts(view: View, rng: np.random.Generator) -> list[Fact]:
    shapes = [shape.value for shape in Shape]
    groups: list[tuple[str, str]] = [("", "")]
    groups.append(("", shapes[int(rng.integers(3))]))
    groups.append((_some_color(view, rng), ""))
    groups.append((_some_color(view, rng), shapes[int(rng.integers(3))]))
    found = []
    for color, shape in (groups[0], groups[int(rng.integers(1, 4))]):
        group = Expression(color=color, shape=shape)
        things = [thing for thing in view.objects if group.fits(thing)]
        if all(thing.is_clear for thing in things):
            is_all = not (color or shape) and len(view.standing) > len(view.objects)
            words = f"{'colored' if is_all else color} {shape or 'object'}s".strip()
            found.append(Fact(key="count", answer=str(len(things)), slots={"things": words}))
    return found


def _attributes(view: View, rng: np.random.Generator) -> list[Fact]:
    found = []
    for key, hidden in (("color", "color"), ("shape", "shape")):
        choices = [
            (thing, expression)
            for thing in view.objects
            if thing.is_clear
            for expression in expressions(view, thing)
            if not getattr(expression, hidden)
        ]
        if choices:
            thing, expression = choices[int(rng.integers(len(choices)))]
            found.append(Fact(key=key, answer=getattr(thing, key), slots={"thing": expression}))
    return found


def _existence(view: View, rng: np.random.Generator) -> list[Fact]:
    shown = {thing.name for thing in view.things}
    clear = sorted({thing.name for thing in view.clear if thing.name != "gripper"})
    names = [f"{color} {shape.value}" for color in COLORS for shape in Shape]
    words = {word for name in shown for word in name.split()}
    absent = [name for name in [*names, *_FIXTURE_NAMES] if name not in shown]
    alike = [name for name in absent if words & set(name.split())] or absent
    found = []
    if clear:
        name = clear[int(rng.integers(len(clear)))]
        found.append(Fact(key="exists", answer="yes", slots={"name": name}))
    pool = alike if rng.random() < 0.6 else absent
    name = pool[int(rng.integers(len(pool)))]
    found.append(Fact(key="exists", answer="no", slots={"name": name}))
    return found


def _relations(view: View, rng: np.random.Generator) -> list[Fact]:
    things = [thing for thing in view.clear if is_named_alone(view, thing)]
    asked: dict[bool, list[tuple[Thing, str, Thing]]] = {True: [], False: []}
    for a in things:
        for b in things:
            for relation in RELATIONS if a is not b else ():
                held = relate(view, relation, a, b)
                if held is not None:
                    asked[held].append((a, relation, b))
    found = []
    for held, triples in asked.items():
        if triples:
            a, relation, b = triples[int(rng.integers(len(triples)))]
            slots = {"thing": named(a), "relation": RELATION_WORDS[relation], "other": named(b)}
            found.append(Fact(key="relation", answer=yes_no(held), slots=slots))
    return found


def _sides(view: View, rng: np.random.Generator) -> list[Fact]:
    """What is left of the bowl? Asked where exactly one object is, and every other clearly is not."""
    choices = []
    for other in view.clear:
        if not is_named_alone(view, other):
            continue
        for relation in RELATIONS:
            rivals = [thing for thing in view.standing if thing is not other]
            held = [relate(view, relation, thing, other) for thing in rivals]
            if held.count(True) == 1 and None not in held:
                choices.append((rivals[held.index(True)], relation, other))
    if not choices:
        return []
    thing, relation, other = choices[int(rng.integers(len(choices)))]
    slots = {"relation": RELATION_WORDS[relation], "other": named(other)}
    return [Fact(key="side", answer=thing.name, slots=slots)]


def _extremes(view: View, rng: np.random.Generator) -> list[Fact]:
    groups: list[tuple[str, list[Thing]]] = [("object", list(view.standing))]
    for shape in Shape:
        groups.append((shape.value, [x for x in view.objects if x.shape == shape.value]))
    choices = []
    for noun, things in groups:
        for relation in RELATIONS if len(things) > 1 else ():
            found = extreme(view, relation, things)
            if found is not None:
                answer = found.name if noun == "object" else found.color
                choices.append((noun, relation, answer))
    if not choices:
        return []
    noun, relation, answer = choices[int(rng.integers(len(choices)))]
    if noun != "object":
        answer = f"{answer} {noun}"
    return [
        Fact(key="extreme", answer=answer, slots={"noun": noun, "extreme": EXTREME_WORDS[relation]})
    ]


def _carried(view: View) -> list[Fact]:
    """What lies in the bowl, on another object or in the gripper."""
    found = []
    for thing in view.objects:
        carriers = [other for other in view.clear if other.name == thing.support]
        if not thing.is_clear or len(carriers) != 1:
            continue
        if thing.support == "bowl":
            found.append(Fact(key="inside", answer=thing.name, slots={}))
        elif thing.support == "gripper":
            found.append(Fact(key="holding", answer=thing.name, slots={}))
        elif is_named_alone(view, carriers[0]):
            found.append(Fact(key="on", answer=thing.name, slots={"other": named(carriers[0])}))
    bowl = view.clear_fixture("bowl")
    if bowl is not None and "bowl" not in view.carriers:
        found.append(Fact(key="inside", answer="nothing", slots={}))
    return found


def _states(view: View) -> list[Fact]:
    found = []
    if view.clear_fixture("gripper") is not None and view.camera != "wrist":
        is_holding = "gripper" in view.carriers
        if not is_holding or any(thing.support == "gripper" for thing in view.clear):
            found.append(Fact(key="gripper", answer=yes_no(is_holding), slots={}))
    opening = view.drawer_opening_m
    if opening is not None and view.clear_fixture("drawer") is not None:
        is_open = opening >= OPEN_DRAWER_M
        if is_open or opening <= CLOSED_DRAWER_M:
            found.append(Fact(key="drawer", answer=yes_no(is_open), slots={}))
    return found


def _some_color(view: View, rng: np.random.Generator) -> str:
    """Returns mostly a colour that the picture shows."""
    shown = [thing.color for thing in view.objects]
    colors = shown if shown and rng.random() < 0.7 else list(COLORS)
    return colors[int(rng.integers(len(colors)))]
