"""How well a model answers about held-out pictures: questions by kind, boxes by AP50, masks by IoU.

Everything comes out as generated text, as `vla ask` shows it. Boxes are asked for name by name, names that the picture
clearly shows and one that it does not; masks by one referring expression for each object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla.checkpoints.answering import Answerable
from vla.data.scene_rows import SceneObject, SceneRow
from vla.evaluation.detection import DetectedPicture, Detection, average_precision
from vla.evaluation.estimates import Estimate
from vla.evaluation.language import Answered, answer_accuracy, mask_iou, referring_iou
from vla.inference.answer import Answer, answer

HELD_OUT_WORDS = "held_out"  # split of questions whose wording training never sees
_WORDS, _BOX, _MASK = 24, 48, 40  # tokens that an answer of each kind may have; a box takes 8 or so


@dataclass(frozen=True, kw_only=True)
class AnsweringScores:
    """Figures with their intervals; of what was not asked, None.

    Attributes:
        vqa: share of right answers, by kind of question and under "all".
        vqa_held_out: the same in wordings kept out of training.
        ap50: average precision of boxes at an IoU of a half.
        mask_iou: mean over referring expressions; no mask counts 0.
    """

    vqa: dict[str, Estimate]
    vqa_held_out: dict[str, Estimate]
    ap50: Estimate | None
    mask_iou: Estimate | None
    num_pictures: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for summary.json."""
        values: dict[str, Any] = {"num_pictures": self.num_pictures}
        for name in ("vqa", "vqa_held_out"):
            values[name] = {kind: figure.to_dict() for kind, figure in getattr(self, name).items()}
        for name in ("ap50", "mask_iou"):
            figure = getattr(self, name)
            values[name] = None if figure is None else figure.to_dict()
        return values

    def metrics(self) -> dict[str, float]:
        """Returns the bare figures, for a training curve."""
        values = {
            "vqa" if kind == "all" else f"vqa/{kind}": one.value for kind, one in self.vqa.items()
        }
        if "all" in self.vqa_held_out:
            values["vqa_held_out"] = self.vqa_held_out["all"].value
        for name, figure in (("ap50", self.ap50), ("mask_iou", self.mask_iou)):
            if figure is not None:
                values[name] = figure.value
        return values


def measure_answers(
    model: Answerable, rows: Sequence[SceneRow], *, questions_per_picture: int = 12, seed: int = 0
) -> AnsweringScores:
    """Returns scores on pictures that training never saw.

    Args:
        model: what is asked.
        rows: with a scene seed from 1,000,000 on, or the figures mean little.
        questions_per_picture: of each split, drawn where there are more.
        seed: decides which questions, phrases and absent names are asked.
    """
    rng = np.random.default_rng(seed)
    shown = [_shown(row) for row in rows]
    asked = [
        (number, question)
        for number, row in enumerate(rows)
        for split in ("train", HELD_OUT_WORDS)
        for question in _some(
            [q for q in row.questions if q.split == split], questions_per_picture, rng
        )
    ]
    texts = [f"answer en {question.question}" for _, question in asked]
    said = answer(model, [shown[number] for number, _ in asked], texts, max_tokens=_WORDS)
    pairs = [
        (
            question.split,
            Answered(
                picture=number, kind=question.kind, given=reply.text, expected=question.answer
            ),
        )
        for (number, question), reply in zip(asked, said, strict=True)
    ]
    return AnsweringScores(
        vqa=_accuracy([one for split, one in pairs if split != HELD_OUT_WORDS]),
        vqa_held_out=_accuracy([one for split, one in pairs if split == HELD_OUT_WORDS]),
        ap50=_measure_boxes(model, rows, shown, rng),
        mask_iou=_measure_masks(model, rows, shown, rng) if model.codec is not None else None,
        num_pictures=len(rows),
    )


def _accuracy(answers: list[Answered]) -> dict[str, Estimate]:
    return answer_accuracy(answers) if answers else {}


def _measure_boxes(
    model: Answerable,
    rows: Sequence[SceneRow],
    shown: Sequence[Tensor],
    rng: np.random.Generator,
) -> Estimate | None:
    names = sorted({item.name for row in rows for item in row.objects})
    asked: list[tuple[int, str]] = []
    for number, row in enumerate(rows):
        present = {item.name for item in row.objects}
        unclear = {item.name for item in row.objects if not item.is_clear}
        asked += [(number, name) for name in sorted(present - unclear)]
        absent = [name for name in names if name not in present]
        asked += [(number, absent[int(rng.integers(len(absent)))])] if absent else []
    if not asked:
        return None
    said = answer(
        model,
        [shown[number] for number, _ in asked],
        [f"detect {name}" for _, name in asked],
        max_tokens=_BOX,
    )
    found: list[list[Detection]] = [[] for _ in rows]
    true: list[list[Detection]] = [[] for _ in rows]
    for (number, name), reply in zip(asked, said, strict=True):
        found[number] += _detections(name, reply)
        true[number] += [
            Detection(label=name, box=_box(item))
            for item in rows[number].objects
            if item.name == name
        ]
    pictures = [DetectedPicture(found=f, true=t) for f, t in zip(found, true, strict=True)]
    return average_precision(pictures).mean


def _detections(name: str, reply: Answer) -> list[Detection]:
    """What was found counts for the name that was asked for, whatever the answer calls it."""
    return [
        Detection(label=name, box=item.box, confidence=item.confidence)
        for item in reply.objects
        if item.box[0] < item.box[2] and item.box[1] < item.box[3]
    ]


def _measure_masks(
    model: Answerable,
    rows: Sequence[SceneRow],
    shown: Sequence[Tensor],
    rng: np.random.Generator,
) -> Estimate | None:
    asked = [
        (number, item, item.phrases[int(rng.integers(len(item.phrases)))])
        for number, row in enumerate(rows)
        for item in row.objects
        if item.phrases
    ]
    if not asked:
        return None
    said = answer(
        model,
        [shown[number] for number, _, _ in asked],
        [f"segment {phrase}" for _, _, phrase in asked],
        max_tokens=_MASK,
    )
    overlaps: list[float | None] = []
    for (_, item, _), reply in zip(asked, said, strict=True):
        mask = reply.objects[0].mask if reply.objects else None
        overlaps.append(None if mask is None else mask_iou(mask, item.mask))
    return referring_iou(overlaps, [number for number, _, _ in asked])


def _shown(row: SceneRow) -> Tensor:
    frames = torch.from_numpy(np.array(row.frames))
    return frames[0] if len(frames) == 1 else frames


def _box(item: SceneObject) -> tuple[float, float, float, float]:
    y_min, x_min, y_max, x_max = item.box
    return y_min, x_min, y_max, x_max


def _some[T](items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    return [items[int(index)] for index in rng.permutation(len(items))[:count]]
