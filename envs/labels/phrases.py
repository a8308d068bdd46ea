"""Referring expressions: words that are true of exactly one object in a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.instructions import Phrasings
from envs.labels.relations import RELATIONS, relate
from envs.labels.seen import Thing, View
from envs.labels.wording import EXTREME_WORDS, NOUNS, RELATION_WORDS, SUPPORT_WORDS

MAX_PHRASES = 4  # kept of all that are true of one object


@dataclass(frozen=True, kw_only=True, eq=False)
class Expression:
    """A description such as "the red cube left of the bowl"; "" leaves a part out.

    Attributes:
        color: word for a colour.
        shape: word for a shape, or a fixture's name.
        relation: one of RELATIONS; to `other`, or to all others that fit (leftmost) where there is none.
        support: "bowl", "gripper" or the name of an object that carries it.
    """

    color: str = ""
    shape: str = ""
    relation: str = ""
    other: Thing | None = None
    support: str = ""

    def fits(self, thing: Thing) -> bool:
        """Whether colour and shape agree."""
        if self.shape and thing.shape != self.shape:
            return False
        if self.color:
            return thing.color == self.color
        return bool(self.shape) or thing.name not in ("gripper", "drawer")  # parts are no objects

    def is_true_of(self, view: View, thing: Thing) -> bool | None:
        """Returns whether the description holds; None where a person might see it either way."""
        if not self.fits(thing):
            return False
        if self.support:
            return thing.support == self.support
        if not self.relation:
            return True
        if self.other is not None:
            return False if thing is self.other else relate(view, self.relation, thing, self.other)
        rivals = [rival for rival in view.things if rival is not thing and self.fits(rival)]
        held = [relate(view, self.relation, thing, rival) for rival in rivals]
        if not held or False in held:
            return False
        return None if None in held else True

    def is_of_one(self, view: View, thing: Thing) -> bool:
        """Whether it is true of `thing` and of nothing else in the picture."""
        return self.is_true_of(view, thing) is True and all(
            self.is_true_of(view, other) is False for other in view.things if other is not thing
        )

    def noun(self, rng: np.random.Generator, split: str) -> str:
        """Returns the description without its article."""
        named = self.shape or pick(NOUNS["object"], rng, split)
        named = f"{self.color} {named}".strip()
        if self.support:
            key = self.support if self.support in SUPPORT_WORDS else "object"
            return f"{named} {pick(SUPPORT_WORDS[key], rng, split).format(other=self.support)}"
        if self.other is not None:
            return (
                f"{named} {pick(RELATION_WORDS[self.relation], rng, split)} the {self.other.name}"
            )
        if self.relation:
            return f"{pick(EXTREME_WORDS[self.relation], rng, split)} {named}"
        return named

    def text(self, rng: np.random.Generator, split: str) -> str:
        return f"the {self.noun(rng, split)}"


def pick(phrasings: Phrasings, rng: np.random.Generator, split: str) -> str:
    """Returns one of the wordings of a split."""
    choices = phrasings.of(split)
    return choices[int(rng.integers(len(choices)))]


def named(thing: Thing) -> Expression:
    """Returns the expression that is the thing's own name."""
    return Expression(color=thing.color, shape=thing.shape)


def is_named_alone(view: View, thing: Thing) -> bool:
    """Whether the picture shows nothing else of that name."""
    return all(other is thing or other.name != thing.name for other in view.things)


def expressions(view: View, thing: Thing) -> list[Expression]:
    """Returns every expression we can build that is true of `thing` alone; none where the picture shows it unclearly.

    Fixtures are there once and go by their names.
    """
    if not thing.is_clear:
        return []
    if not thing.is_object:
        return [named(thing)]
    found: list[Expression] = []
    references = [
        other
        for other in view.clear
        if other is not thing and other.name not in ("gripper", "drawer")
        if is_named_alone(view, other)
    ]
    for color, shape in (
        (thing.color, thing.shape), ("", thing.shape), (thing.color, ""), ("", ""),
    ):  # fmt: skip
        plain = Expression(color=color, shape=shape)
        rivals = [other for other in view.things if other is not thing and plain.fits(other)]
        if not rivals and (color or shape):
            found.append(plain)
        for relation in RELATIONS:
            if rivals and _beats(view, relation, thing, rivals):
                found.append(Expression(color=color, shape=shape, relation=relation))
            for other in references:
                if _stands_apart(view, relation, thing, other, rivals):
                    found.append(
                        Expression(color=color, shape=shape, relation=relation, other=other)
                    )
        if _is_carried_alone(view, thing, rivals):
            found.append(Expression(color=color, shape=shape, support=thing.support))
    return found


def choose(
    found: list[Expression], rng: np.random.Generator, limit: int = MAX_PHRASES
) -> list[Expression]:
    """Returns at most `limit` of them, a plain one first if there is one."""
    plain = [expression for expression in found if not (expression.relation or expression.support)]
    first = [plain[int(rng.integers(len(plain)))]] if plain else []
    rest = [expression for expression in found if expression not in first]
    order = rng.permutation(len(rest))[: limit - len(first)]
    return first + [rest[int(index)] for index in order]


def _beats(view: View, relation: str, thing: Thing, rivals: list[Thing]) -> bool:
    return all(relate(view, relation, thing, rival) is True for rival in rivals)


def _stands_apart(
    view: View, relation: str, thing: Thing, other: Thing, rivals: list[Thing]
) -> bool:
    if relate(view, relation, thing, other) is not True:
        return False
    return all(rival is other or relate(view, relation, rival, other) is False for rival in rivals)


def _is_carried_alone(view: View, thing: Thing, rivals: list[Thing]) -> bool:
    if thing.support in ("table", "drawer"):
        return False
    carriers = [carrier for carrier in view.clear if carrier.name == thing.support]
    return len(carriers) == 1 and all(rival.support != thing.support for rival in rivals)
