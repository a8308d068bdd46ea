"""Average precision of boxes, by the rules of PASCAL VOC and COCO that this file states.

Per class, over all pictures: detections are taken from the most confident down; each takes the still free box of its
picture and class that it overlaps most, if by at least the threshold, and is right; else it is wrong, and so is every
further detection of a box that is taken (COCO's rule for duplicates). Precision at a recall is the best precision at
that recall or beyond, and AP is the area under it at every recall that occurs: all-points interpolation (VOC 2010 on),
not COCO's 101 points. The figure is the mean over the classes that occur among the true boxes. Confidence is the
product of the probabilities of the tokens that wrote the detection. At most 100 detections of a class in a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla.evaluation.estimates import Estimate, bootstrap, nothing

MOST_DETECTIONS = 100  # COCO's maxDets


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A box [y0, x0, y1, x1] in shares of the picture, of the class `label`; truths need no confidence."""

    label: str
    box: tuple[float, float, float, float]
    confidence: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DetectedPicture:
    """What was found in one picture, and what is there."""

    found: Sequence[Detection]
    true: Sequence[Detection]


@dataclass(frozen=True, kw_only=True)
class AveragePrecision:
    """The mean over classes with its interval, and every class by itself."""

    mean: Estimate
    per_class: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """One class: of its detections, most confident first, whether right and in which picture; true boxes by picture."""

    is_right: NDArray[np.bool_]
    picture: NDArray[np.intp]
    num_true: NDArray[np.float64]


def average_precision(
    pictures: Sequence[DetectedPicture], threshold: float = 0.5, seed: int = 0
) -> AveragePrecision:
    """Returns AP at an IoU of `threshold`; see the top of the file for the rules.

    The interval is the percentile bootstrap that draws whole pictures; a class no drawn picture holds is left out of
    that draw. Classes that only detections name are nobody's: ask also for what is not there to see false alarms.
    """
    labels = sorted({box.label for picture in pictures for box in picture.true})
    if not labels:
        return AveragePrecision(mean=nothing("bootstrap by picture"), per_class={})
    curves = {label: _curve(pictures, label, threshold) for label in labels}

    def mean(copies: NDArray[np.float64]) -> float:
        values = [_area(curve, copies) for curve in curves.values()]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else float("nan")

    once = np.ones(len(pictures))
    return AveragePrecision(
        mean=bootstrap(mean, len(pictures), sum(len(one.true) for one in pictures), seed),
        per_class={label: _area(curve, once) or 0.0 for label, curve in curves.items()},
    )


def box_iou(one: ArrayLike, other: ArrayLike) -> float:
    """Returns the intersection over union of two boxes [y0, x0, y1, x1]; 0 where both are empty."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    areas = np.clip(a[2:] - a[:2], 0, None).prod() + np.clip(b[2:] - b[:2], 0, None).prod()
    union = areas - shared
    return float(shared / union) if union > 0 else 0.0


def confidence_of(log_probabilities: Sequence[float]) -> float:
    """Returns the confidence of a detection: the product of its tokens' probabilities, from their logarithms."""
    return float(np.exp(np.sum(np.asarray(log_probabilities, dtype=np.float64))))


def _curve(pictures: Sequence[DetectedPicture], label: str, threshold: float) -> _Curve:
    confidences: list[float] = []
    is_right: list[bool] = []
    places: list[int] = []
    num_true = np.zeros(len(pictures))
    for place, picture in enumerate(pictures):
        true = [box for box in picture.true if box.label == label]
        found = sorted(
            (box for box in picture.found if box.label == label),
            key=lambda box: -box.confidence,
        )[:MOST_DETECTIONS]
        num_true[place] = len(true)
        is_right += _matched(found, true, threshold)
        confidences += [box.confidence for box in found]
        places += [place] * len(found)
    order = np.argsort(-np.asarray(confidences, dtype=np.float64), kind="stable")
    return _Curve(
        is_right=np.asarray(is_right, dtype=bool)[order],
        picture=np.asarray(places, dtype=np.intp)[order],
        num_true=num_true,
    )


def _matched(found: Sequence[Detection], true: Sequence[Detection], threshold: float) -> list[bool]:
    """Returns for every detection, most confident first, whether it is the first of a true box."""
    free = list(range(len(true)))
    is_right: list[bool] = []
    for detection in found:
        overlaps = {index: box_iou(detection.box, true[index].box) for index in free}
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        hit = best is not None and overlaps[best] >= threshold
        if hit and best is not None:
            free.remove(best)
        is_right.append(hit)
    return is_right


def _area(curve: _Curve, copies: NDArray[np.float64]) -> float | None:
    """Returns the area under precision over recall, picture i counting `copies[i]` times; None without true boxes."""
    total = float(curve.num_true @ copies)
    if total == 0:
        return None
    weights = copies[curve.picture]
    right = np.cumsum(weights * curve.is_right)
    seen = np.cumsum(weights)
    precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    gained = weights * curve.is_right / total
    return float(gained @ best)
