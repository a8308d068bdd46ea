import math

import numpy as np
import pytest

from vla.evaluation import detection, estimates
from vla.evaluation.detection import (
    DetectedPicture,
    Detection,
    average_precision,
    box_iou,
    confidence_of,
)

LEFT, RIGHT, FAR = (0.0, 0.0, 1.0, 0.4), (0.0, 0.6, 1.0, 1.0), (0.4, 0.4, 0.5, 0.5)


def found(box, confidence=1.0, label="cube") -> Detection:
    return Detection(label=label, box=box, confidence=confidence)


def picture(given, true) -> DetectedPicture:
    return DetectedPicture(found=given, true=[found(box) for box in true])


def naive_average_precision(pictures, threshold=0.5) -> float:
    """One class; step by step down the list, the area as a sum over recalls that occur."""
    ranked = sorted(
        ((box.confidence, place, box) for place, one in enumerate(pictures) for box in one.found),
        key=lambda entry: -entry[0],
    )
    taken: set[tuple[int, int]] = set()
    total = sum(len(one.true) for one in pictures)
    points, right = [], 0
    for seen, (_, place, box) in enumerate(ranked, start=1):
        free = [i for i in range(len(pictures[place].true)) if (place, i) not in taken]
        best = max(free, key=lambda i: box_iou(box.box, pictures[place].true[i].box), default=None)
        if best is not None and box_iou(box.box, pictures[place].true[best].box) >= threshold:
            taken.add((place, best))
            right += 1
        points.append((right / total, right / seen))
    area, before = 0.0, 0.0
    for recall, _ in points:
        area += (recall - before) * max(p for r, p in points if r >= recall)
        before = recall
    return area


def random_pictures(seed: int, number: int = 12) -> list[DetectedPicture]:
    rng = np.random.default_rng(seed)

    def box():
        low = rng.uniform(0, 0.6, size=2)
        return tuple(np.concatenate([low, low + rng.uniform(0.1, 0.4, size=2)]).tolist())

    pictures = []
    for _ in range(number):
        true = [box() for _ in range(rng.integers(1, 4))]
        near = [
            tuple((np.asarray(one) + rng.normal(0, 0.03, size=4)).tolist())
            for one in true
            for _ in range(rng.integers(0, 3))
        ]
        given = [found(one, rng.uniform()) for one in [*near, box()]]
        pictures.append(picture(given, true))
    return pictures


def test_boxes_overlap_by_their_areas():
    assert box_iou((0, 0, 1, 1), (0, 0.5, 1, 1.5)) == pytest.approx(1 / 3)
    assert box_iou(LEFT, RIGHT) == 0.0
    assert box_iou((0.5, 0.5, 0.2, 0.9), (0, 0, 1, 1)) == 0.0  # upside down: no area


def test_the_area_is_under_the_best_precision_at_each_recall_or_beyond():
    # Down the list: right (1/1), wrong (1/2), right (2/3). All-points: 1/2 x 1 + 1/2 x 2/3.
    given = [found(LEFT, 0.9), found(FAR, 0.8), found(RIGHT, 0.7)]
    estimate = average_precision([picture(given, [LEFT, RIGHT])])
    assert estimate.mean.value == pytest.approx(0.5 + 1 / 3)


def test_a_wrong_detection_after_all_boxes_are_found_costs_nothing():
    given = [found(LEFT, 0.9), found(FAR, 0.1)]
    assert average_precision([picture(given, [LEFT])]).mean.value == 1.0


def test_a_second_detection_of_a_taken_box_is_wrong():
    given = [found(LEFT, 0.9), found(LEFT, 0.8), found(RIGHT, 0.7)]
    assert average_precision([picture(given, [LEFT, RIGHT])]).mean.value == pytest.approx(5 / 6)


def test_a_detection_takes_the_free_box_it_overlaps_most():
    wide, inner = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.8)
    # 0.9 overlaps both by more than a half and takes the better one; the other is left for the next.
    given = [found((0.0, 0.0, 1.0, 0.82), 0.9), found(inner, 0.8)]
    assert average_precision([picture(given, [wide, inner])]).mean.value == 1.0


def test_missing_half_of_the_boxes_halves_the_figure():
    pictures = [picture([found(LEFT)], [LEFT]), picture([], [LEFT])]
    assert average_precision(pictures).mean.value == 0.5


def test_classes_count_alike_however_many_boxes_they_have_and_unknown_ones_not_at_all():
    true = [found(LEFT), found(RIGHT), found(FAR, label="ball")]
    given = [found(LEFT), found(RIGHT), found(FAR, label="cup")]
    estimate = average_precision([DetectedPicture(found=given, true=true)])
    assert estimate.per_class == {"ball": 0.0, "cube": 1.0}
    assert estimate.mean.value == 0.5


def test_a_box_in_another_picture_is_not_found():
    pictures = [picture([found(LEFT)], [RIGHT]), picture([found(RIGHT)], [LEFT])]
    assert average_precision(pictures).mean.value == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_the_naive_version(seed):
    pictures = random_pictures(seed)
    value = average_precision(pictures).mean.value
    assert 0.1 < value < 0.95
    assert value == pytest.approx(naive_average_precision(pictures))


def test_a_draw_counts_pictures_as_if_they_were_there_several_times(monkeypatch):
    monkeypatch.setattr(estimates, "RESAMPLES", 30)
    pictures = random_pictures(7)
    draws = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=30)
    copied = [
        [one for one, n in zip(pictures, draw, strict=True) for _ in range(n)] for draw in draws
    ]
    values = [naive_average_precision(copies) for copies in copied]
    mean = average_precision(pictures, seed=5).mean
    assert (mean.low, mean.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_at_most_a_hundred_detections_of_a_class_are_taken_per_picture():
    given = [*(found(FAR, 0.9) for _ in range(detection.MOST_DETECTIONS)), found(LEFT, 0.5)]
    assert average_precision([picture(given, [LEFT])]).mean.value == 0.0


def test_no_true_box_means_no_figure():
    assert math.isnan(average_precision([picture([found(LEFT)], [])]).mean.value)


def test_confidence_is_the_product_of_the_tokens_probabilities():
    assert confidence_of([math.log(0.5), math.log(0.5), 0.0]) == pytest.approx(0.25)
