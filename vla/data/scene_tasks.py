"""What a labelled picture is asked, and the answers: captions, questions, boxes and masks, all of them as text.

    caption en              a table with a red cube and a blue ball
    answer en {question}    two
    detect {name}           <loc0210><loc0142><loc0867><loc0821> red cube ; <loc...>... red cube       none, if absent
    segment {phrase}        <loc0210><loc0142><loc0867><loc0821><seg035>...16 codewords...<seg101> the cube on the left

The instructions are PaliGemma's (Beyer et al. 2024), which leaves "none" to us. Several objects of one name are listed
from left to right, so that there is one right order to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vla.tokenizers.loc_seg import LocatedObject, encode_objects

ABSENT = "none"


class TaskKind(Enum):
    """What is asked for."""

    CAPTION = "caption"
    ANSWER = "answer"
    DETECT = "detect"
    SEGMENT = "segment"


@dataclass(kw_only=True)
class TaskWeights:
    """How often each kind is drawn, against the others; kinds that a picture has no material for are left out."""

    caption: float = 1.0
    answer: float = 4.0
    detect: float = 3.0
    segment: float = 2.0
    absent_fraction: float = 0.15  # of detections, those that ask for what is not there


@dataclass(frozen=True, kw_only=True)
class LabelledObject:
    """An object of a picture.

    Attributes:
        box: y_min, x_min, y_max, x_max in shares of the picture.
        phrases: referring expressions, true of this object alone.
        codewords: 16 indices that stand for its mask; None without a codec.
        is_clear: whether enough of it shows for a person to know it.
    """

    name: str
    box: tuple[float, float, float, float]
    phrases: tuple[str, ...]
    codewords: tuple[int, ...] | None = None
    is_clear: bool = True


@dataclass(frozen=True, kw_only=True)
class LabelledPicture:
    """A picture, or clip, and all that is said about it.

    Attributes:
        frames: (T, 3, H, W) uint8; one frame of a still.
        scene_seed: of the scene it shows.
        questions: kind, question and answer of each.
    """

    frames: NDArray[np.uint8]
    scene_seed: int
    objects: tuple[LabelledObject, ...]
    captions: tuple[str, ...]
    questions: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question about one picture.

    Attributes:
        kind: what is asked for.
        detail: kind of question; "" of the others.
        instruction: the prompt, in words.
        answer: what is true, places and masks spelled out.
        objects: numbers of the objects that the answer locates, in its order.
    """

    kind: TaskKind
    detail: str = ""
    instruction: str
    answer: str
    objects: tuple[int, ...] = ()


def draw_tasks(
    picture: LabelledPicture,
    rng: np.random.Generator,
    count: int,
    weights: TaskWeights,
    names: Sequence[str],
) -> list[Task]:
    """Returns `count` tasks about a picture, one being repeated only where its kind has not enough others.

    Args:
        picture: what is asked about.
        rng: decides all.
        count: how many; none come back for a picture without any labels.
        weights: mixture of the kinds.
        names: of objects anywhere, from which absent ones are drawn.
    """
    everything = all_tasks(picture)
    kinds = [kind for kind in TaskKind if everything[kind] and getattr(weights, kind.value) > 0]
    if not kinds:
        return []
    shares = np.array([getattr(weights, kind.value) for kind in kinds], dtype=np.float64)
    orders = {kind: rng.permutation(len(everything[kind])) for kind in kinds}
    present = {item.name for item in picture.objects}
    absent = [name for name in names if name not in present]
    drawn = dict.fromkeys(kinds, 0)
    tasks: list[Task] = []
    for choice in rng.choice(len(kinds), size=count, p=shares / shares.sum()):
        kind = kinds[int(choice)]
        if kind is TaskKind.DETECT and absent and rng.random() < weights.absent_fraction:
            tasks.append(detect_absent(absent[int(rng.integers(len(absent)))]))
            continue
        order = orders[kind]
        tasks.append(everything[kind][int(order[drawn[kind] % len(order)])])
        drawn[kind] += 1
    return tasks


def all_tasks(picture: LabelledPicture) -> dict[TaskKind, list[Task]]:
    """Returns everything that can be asked about a picture, by kind; absent objects apart.

    Objects whose masks have no codewords are not segmented, and names that an unclear object has not detected.
    """
    unclear = {item.name for item in picture.objects if not item.is_clear}
    names = dict.fromkeys(item.name for item in picture.objects if item.name not in unclear)
    return {
        TaskKind.CAPTION: [
            Task(kind=TaskKind.CAPTION, instruction="caption en", answer=text)
            for text in picture.captions
        ],
        TaskKind.ANSWER: [
            Task(kind=TaskKind.ANSWER, detail=kind, instruction=f"answer en {text}", answer=answer)
            for kind, text, answer in picture.questions
        ],
        TaskKind.DETECT: [_detect(picture, name) for name in names],
        TaskKind.SEGMENT: [
            _segment(item, number, phrase)
            for number, item in enumerate(picture.objects)
            if item.codewords is not None
            for phrase in item.phrases
        ],
    }


def detect_absent(name: str) -> Task:
    """Returns the task to find an object that is not there."""
    return Task(kind=TaskKind.DETECT, instruction=f"detect {name}", answer=ABSENT)


def _detect(picture: LabelledPicture, name: str) -> Task:
    boxes = {k: item.box for k, item in enumerate(picture.objects) if item.name == name}
    order = sorted(boxes, key=lambda number: (boxes[number][1], boxes[number][0]))
    found = [LocatedObject(label=name, box=boxes[number]) for number in order]
    return Task(
        kind=TaskKind.DETECT,
        instruction=f"detect {name}",
        answer=encode_objects(found),
        objects=tuple(order),
    )


def _segment(item: LabelledObject, number: int, phrase: str) -> Task:
    located = LocatedObject(label=phrase, box=item.box, codewords=item.codewords)
    return Task(
        kind=TaskKind.SEGMENT,
        instruction=f"segment {phrase}",
        answer=encode_objects([located]),
        objects=(number,),
    )
