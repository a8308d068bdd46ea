"""Answers questions about labelled scenes naively, from their words, masks and the simulation's state: no margins."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from envs.labels.labelled import LabelledScene
from envs.labels.seen import Thing, View
from envs.labels.wording import (
    EXTREME_WORDS,
    KINDS,
    NOUNS,
    QUESTIONS,
    RELATION_WORDS,
    SUPPORT_WORDS,
)  # fmt: skip
from envs.objects import COLORS
from envs.scene import Scene

SHAPES = ("cube", "cylinder", "block", "card")


class NoSenseError(Exception):
    pass


def answers(view: View, scene: Scene, kind: str, question: str) -> set[str]:
    """Returns every answer that some reading of the question gives."""
    found = set()
    for key, phrasings in QUESTIONS.items():
        for template in (
            (*phrasings.train, *phrasings.held_out) if KINDS.get(key, key) == kind else ()
        ):
            match = pattern(template).fullmatch(question)
            if match:
                try:
                    found.add(_answer(view, scene, key, match.groupdict()))
                except NoSenseError:
                    continue
    return found


def pattern(template: str) -> re.Pattern[str]:
    """Returns what a template looks like with its slots filled in."""

    def slot(match: re.Match[str]) -> str:
        tables = {
            "relation": RELATION_WORDS,
            "extreme": EXTREME_WORDS,
            "one": EXTREME_WORDS,
            "two": EXTREME_WORDS,
        }
        words = [w for p in tables.get(match[1], {}).values() for w in (*p.train, *p.held_out)]
        choices = "|".join(sorted(words, key=len, reverse=True))
        return f"(?P<{match[1]}>{choices or '.+?'})"

    return re.compile(re.sub(r"\\{(\w+)\\}", slot, re.escape(template)))


def resolve(view: View, phrase: str) -> list[Thing]:
    """Returns the things that "the red cube left of the bowl" is true of."""
    words = phrase.removeprefix("the ")
    for relation, phrasings in EXTREME_WORDS.items():
        for extreme in (*phrasings.train, *phrasings.held_out):
            if words.startswith(extreme + " "):
                return [
                    extremest(view, relation, _of_noun(view, words.removeprefix(extreme + " ")))
                ]
    betweens = {
        between: relation
        for relation, phrasings in RELATION_WORDS.items()
        for between in (*phrasings.train, *phrasings.held_out)
    }
    for between in sorted(betweens, key=len, reverse=True):  # "to the left of" holds "left of"
        if f" {between} the " in words:
            noun, name = words.split(f" {between} the ")
            other, relation = one(_of_noun(view, name)), betweens[between]
            return [
                t
                for t in _of_noun(view, noun)
                if t is not other and stands(view, relation, t, other)
            ]
    for carrier, phrasings in SUPPORT_WORDS.items():
        for template in (*phrasings.train, *phrasings.held_out):
            found = re.fullmatch(r"(.+?) " + template.replace("{other}", "(.+)"), words)
            if found and not found[1].endswith("stands"):
                name = found[2] if carrier == "object" else carrier
                return [t for t in _of_noun(view, found[1]) if t.support == name]
    return _of_noun(view, words)


def stands(view: View, relation: str, a: Thing, b: Thing) -> bool:
    return _rank(view, relation, a) < _rank(view, relation, b)


def extremest(view: View, relation: str, things: list[Thing]) -> Thing:
    return min(things, key=lambda thing: _rank(view, relation, thing))


def one(things: list[Any]) -> Any:
    if len(things) != 1:
        raise NoSenseError(f"{len(things)} things")
    return things[0]


def _rank(view: View, relation: str, thing: Thing) -> float:
    if relation in ("left", "right"):
        middle = float(np.nonzero(thing.mask)[1].mean())
        return middle if relation == "left" else -middle
    distance = float(np.linalg.norm((thing.position - view.viewpoint.position)[:2]))
    return distance if relation == "front" else -distance


def _of_noun(view: View, noun: str) -> list[Thing]:
    *color, kind = noun.split(" ")
    if kind not in (
        *SHAPES,
        *NOUNS["object"].train,
        "bowl",
        "square",
        "cabinet",
        "drawer",
        "gripper",
    ):
        raise NoSenseError(noun)
    if any(word not in (*COLORS, "colored") for word in color):
        raise NoSenseError(noun)
    things = [t for t in view.things if t.name not in ("gripper", "drawer") or t.name == kind]
    if kind not in NOUNS["object"].train:
        things = [t for t in things if t.shape == kind]
    if color == ["colored"]:
        return [t for t in things if t.color]
    return [t for t in things if not color or t.color == color[0]]


def _word(table: dict[str, Any], text: str) -> str:
    return one([key for key, words in table.items() if text in (*words.train, *words.held_out)])


def _answer(view: View, scene: Scene, key: str, slots: dict[str, str]) -> str:
    yes_no = {True: "yes", False: "no"}
    match key:
        case "count":
            return str(len(_of_noun(view, slots["things"].removesuffix("s"))))
        case "color":
            return one(resolve(view, slots["thing"])).color
        case "shape":
            return one(resolve(view, slots["thing"])).shape
        case "exists":
            return yes_no[any(thing.name == slots["name"] for thing in view.things)]
        case "relation":
            a, b = one(resolve(view, slots["thing"])), one(resolve(view, slots["other"]))
            return yes_no[stands(view, _word(RELATION_WORDS, slots["relation"]), a, b)]
        case "side":
            other, relation = (
                one(resolve(view, slots["other"])),
                _word(RELATION_WORDS, slots["relation"]),
            )
            rivals = [t for t in _of_noun(view, "object") if t is not other]
            return one([t for t in rivals if stands(view, relation, t, other)]).name
        case "extreme":
            relation = _word(EXTREME_WORDS, slots["extreme"])
            return extremest(view, relation, _of_noun(view, slots["noun"])).name
        case "wide_ends":
            a, b = (
                extremest(view, _word(EXTREME_WORDS, slots[end]), _of_noun(view, "object"))
                for end in ("one", "two")
            )
            return yes_no[getattr(a, slots["quality"]) == getattr(b, slots["quality"])]
        case "wide_card" | "wide_square":
            mask = one(resolve(view, slots["thing"])).mask
            ratio = np.median(mask.sum(axis=1)[mask.any(axis=1)]) / np.median(
                mask.sum(axis=0)[mask.any(axis=0)]
            )
            return yes_no[bool(ratio > 1) if key == "wide_card" else bool(0.9 < ratio < 1.11)]
        case "drawer":
            return yes_no[scene.drawer_opening_m > 0.03]
    return _carried(scene, key, slots)


def _carried(scene: Scene, key: str, slots: dict[str, str]) -> str:
    """Answers what is in or on what from where the simulation has the objects."""
    slots_of = range(len(scene.objects))
    places = {slot: scene.object_position(slot) for slot in slots_of}
    held = [s for s in slots_of if np.linalg.norm(places[s] - scene.tool_position) < 0.01]
    names = {slot: scene.objects[slot].name for slot in slots_of}
    match key:
        case "gripper":
            return "yes" if held else "no"
        case "holding":
            return names[one(held)]
        case "inside":
            bowl = scene.fixture_position("bowl")
            inside = [
                s
                for s in slots_of
                if np.linalg.norm((places[s] - bowl)[:2]) < 0.06 and s not in held
            ]
            return names[inside[0]] if inside else "nothing"
        case "on":
            base = one([s for s in slots_of if f"the {names[s]}" == slots["other"]])
            over = [
                s
                for s in slots_of
                if s != base and np.linalg.norm((places[s] - places[base])[:2]) < 0.01
            ]
            return names[one(over)]
    raise NoSenseError(key)


def wrong_answers(scene: LabelledScene, state: Scene) -> list[tuple[str, str, set[str]]]:
    """Returns every question whose answer is not the one that we find."""
    asked = [q for q in scene.questions if q.kind not in ("detail", "motion")]
    found = [(q.question, q.answer, answers(scene.view, state, q.kind, q.question)) for q in asked]
    return [entry for entry in found if entry[2] != {entry[1]}]
