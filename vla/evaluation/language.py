"""How well a model reads pictures: retrieval, answers and masks. Boxes are in `detection`, intervals in `estimates`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla.errors import VlaError
from vla.evaluation.estimates import Estimate, mean_by_picture, share


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """R@1 in both directions: shares of pictures whose text, and of texts whose picture, came first of `among`."""

    image_to_text: Estimate
    text_to_image: Estimate
    among: int


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question about one picture: what was said and what is true."""

    picture: Hashable
    kind: str
    given: str
    expected: str

    @property
    def is_right(self) -> bool:
        """Whether both are the same words: case, spaces and a full stop at the end do not count."""
        return _words(self.given) == _words(self.expected)


def retrieval(
    images: ArrayLike, texts: ArrayLike, *, among: int = 64, same: Sequence[Hashable] | None = None
) -> Retrieval:
    """Returns R@1 among `among`: the pairs are cut, in their order, into groups of so many, each searched by itself.

    A hit is a pair whose similarity is larger than that of every other candidate: what ties does not count, so that a
    model that says the same of everything gets 0. Candidates that are the same as the sought one (two pictures of
    one caption) are no rivals.

    Args:
        images: (pairs, width) embeddings; similarity is the dot product, so of unit length as a rule.
        texts: (pairs, width), row i of picture i.
        among: candidates of every search; pairs left over after the last whole group are not used.
        same: per pair, what is equal for pairs whose texts are equal (the caption itself); None: all differ.

    Raises:
        VlaError: shapes differ, or there are fewer pairs than `among`.
    """
    left, right = np.asarray(images, dtype=np.float64), np.asarray(texts, dtype=np.float64)
    if left.ndim != 2 or left.shape != right.shape:
        raise VlaError(
            f"retrieval needs as many texts as images, of one width; got {left.shape}, {right.shape}"
        )
    if not 2 <= among <= len(left):
        raise VlaError(
            f"retrieval among {among} needs 2 <= {among} <= {len(left)} pairs; give more pictures"
        )
    if same is not None and len(same) != len(left):
        raise VlaError(f"{len(left)} pairs need one text each; got {len(same)}")
    labels = list(range(len(left))) if same is None else list(same)
    rows: list[bool] = []
    columns: list[bool] = []
    for start in range(0, len(left) - among + 1, among):
        group = slice(start, start + among)
        similarity = left[group] @ right[group].T
        is_same = np.array([[a == b for b in labels[group]] for a in labels[group]])
        rows += _first(similarity, is_same)
        columns += _first(similarity.T, is_same)
    return Retrieval(image_to_text=share(rows), text_to_image=share(columns), among=among)


def answer_accuracy(answers: Sequence[Answered]) -> dict[str, Estimate]:
    """Returns the share of right answers by kind of question, in the order of the kinds' names, and under "all"."""
    kinds = sorted({answer.kind for answer in answers})
    chosen = {kind: [answer for answer in answers if answer.kind == kind] for kind in kinds}
    return {
        kind: share([one.is_right for one in own], [one.picture for one in own])
        for kind, own in {**chosen, "all": list(answers)}.items()
    }


def mask_iou(given: ArrayLike, expected: ArrayLike) -> float:
    """Returns the intersection over union of two masks of one shape; 1 when both are empty.

    Raises:
        VlaError: shapes differ.
    """
    one, other = np.asarray(given, dtype=bool), np.asarray(expected, dtype=bool)
    if one.shape != other.shape:
        raise VlaError(f"masks of one picture have one shape; got {one.shape} and {other.shape}")
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def referring_iou(ious: Sequence[float | None], pictures: Sequence[Hashable]) -> Estimate:
    """Returns the mean mask IoU over phrases; a phrase that got no mask at all (None) counts 0."""
    return mean_by_picture([0.0 if iou is None else iou for iou in ious], pictures)


def codec_iou(masks: ArrayLike, decoded: ArrayLike, threshold: float = 0.5) -> Estimate:
    """Returns the mean IoU of masks with what a codec made of them.

    Args:
        masks: (masks, rows, columns), 0 or 1.
        decoded: probabilities of the same shape.
        threshold: from which on a probability is part of the mask.
    """
    before = np.asarray(masks, dtype=np.float64) >= 0.5
    after = np.asarray(decoded, dtype=np.float64) >= threshold
    if before.shape != after.shape:
        raise VlaError(f"a codec keeps the shape; got {before.shape} and {after.shape}")
    return mean_by_picture([mask_iou(*pair) for pair in zip(after, before, strict=True)])


def _first(similarity: NDArray[np.float64], is_same: NDArray[np.bool_]) -> list[bool]:
    """Returns for every row whether its diagonal entry is larger than every rival's."""
    rivals = np.where(is_same, -np.inf, similarity).max(axis=1)
    return [bool(hit) for hit in np.diagonal(similarity) > rivals]


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".").rstrip().lower()
