"""A labelled picture or clip: everything that is said about it, in words of its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.labels.phrases import choose, expressions
from envs.labels.questions import Fact, Question
from envs.labels.seen import View

FIRST_HELD_OUT_SEED = 1_000_000
MAX_QUESTIONS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledObject:
    """One thing of a picture and the phrases that are true of it alone; see `envs.labels.seen.Thing`."""

    name: str
    color: str
    shape: str
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]
    num_pixels: int
    is_clear: bool
    phrases: tuple[str, ...]
    held_out_phrases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledScene:
    """One row of a dataset of labelled scenes.

    Attributes:
        frames: (T, H, W, 3) uint8; T is 1 for a still. Boxes and masks belong to the last frame.
        view: the last frame as the labeller saw it, for tests.
    """

    frames: NDArray[np.uint8]
    camera: str
    scene_seed: int
    kind: str
    objects: tuple[LabelledObject, ...]
    captions: tuple[str, ...]
    questions: tuple[Question, ...]
    view: View


def label(
    seed: int,
    kind: str,
    frames: NDArray[np.uint8],
    view: View,
    found: Sequence[Fact],
    sentences: Sequence[str],
    rng: np.random.Generator,
) -> LabelledScene:
    """Returns the row: every fact in words of its split, every thing with its phrases.

    Where there is too much to ask, the first facts are kept. Held-out seeds ask each question twice, in training words
    and in held-out words.
    """
    is_held_out = seed >= FIRST_HELD_OUT_SEED
    picked = found[:MAX_QUESTIONS]
    questions = [fact.worded(rng, "train") for fact in picked]
    if is_held_out:
        questions += [fact.worded(rng, "held_out") for fact in picked]
    objects = []
    for thing in view.things:
        chosen = choose(expressions(view, thing), rng)
        phrases = [expression.text(rng, "train") for expression in chosen]
        others = [expression.text(rng, "held_out") for expression in chosen] if is_held_out else []
        objects.append(
            LabelledObject(
                name=thing.name,
                color=thing.color,
                shape=thing.shape,
                box=thing.box,
                mask=thing.mask,
                num_pixels=thing.num_pixels,
                is_clear=thing.is_clear,
                phrases=tuple(dict.fromkeys(phrases)),
                held_out_phrases=tuple(dict.fromkeys(others)),
            )
        )
    return LabelledScene(
        frames=frames,
        camera=view.camera,
        scene_seed=seed,
        kind=kind,
        objects=tuple(objects),
        captions=tuple(dict.fromkeys(sentences)),
        questions=tuple(questions),
        view=view,
    )
