import numpy as np
import pytest

from vla.errors import VlaError
from vla.evaluation.language import (
    Answered,
    answer_accuracy,
    codec_iou,
    mask_iou,
    referring_iou,
    retrieval,
)


def answered(given: str, expected: str, kind: str = "color", picture: int = 0) -> Answered:
    return Answered(picture=picture, kind=kind, given=given, expected=expected)


def test_every_picture_finds_its_text_when_both_have_the_same_direction():
    vectors = np.eye(8)
    found = retrieval(vectors, vectors, among=4)
    assert found.image_to_text.value == found.text_to_image.value == 1.0
    assert found.image_to_text.n == 8


def test_both_directions_are_counted_apart():
    images = np.array([[1.0, 0.0], [0.9, 0.1]])
    texts = np.array([[1.0, 0.0], [0.0, 1.0]])
    # Similarities: picture 0 (1, 0), picture 1 (0.9, 0.1); text 0 finds picture 0, text 1 picture 1.
    found = retrieval(images, texts, among=2)
    assert found.image_to_text.value == 0.5
    assert found.text_to_image.value == 1.0


def test_a_model_that_says_the_same_of_everything_finds_nothing():
    found = retrieval(np.ones((64, 3)), np.ones((64, 3)), among=64)
    assert found.image_to_text.value == found.text_to_image.value == 0.0


def test_pictures_of_one_caption_are_no_rivals():
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    apart = retrieval(vectors, vectors, among=3)
    joined = retrieval(vectors, vectors, among=3, same=["red", "red", "blue"])
    assert apart.image_to_text.value == pytest.approx(1 / 3)
    assert joined.image_to_text.value == 1.0


def test_candidates_come_from_the_pairs_own_group_and_what_is_left_over_is_not_used():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]] * 3 + [[1.0, 1.0]])
    found = retrieval(vectors, vectors, among=2)
    assert found.image_to_text.value == 1.0  # three groups of two; among six, twins would tie
    assert found.image_to_text.n == 6


def test_retrieval_agrees_with_a_search_written_out():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(2, 40, 5))
    hits = 0
    for index in range(40):
        group = range(index // 10 * 10, index // 10 * 10 + 10)
        hits += max(group, key=lambda other: float(images[index] @ texts[other])) == index
    assert retrieval(images, texts, among=10).image_to_text.value == hits / 40


@pytest.mark.parametrize(
    ("images", "texts", "among"), [((4, 3), (5, 3), 2), ((4, 3), (4, 3), 8), ((4, 3), (4, 3), 1)]
)
def test_retrieval_that_cannot_be_measured_is_refused(images, texts, among):
    with pytest.raises(VlaError, match="retrieval"):
        retrieval(np.zeros(images), np.zeros(texts), among=among)


@pytest.mark.parametrize(
    ("given", "is_right"),
    [("red", True), (" Red. ", True), ("dark  red", False), ("", False), ("red cube", False)],
)
def test_an_answer_is_right_when_it_is_the_same_words(given, is_right):
    assert answered(given, "red").is_right is is_right


def test_accuracy_comes_by_kind_and_overall():
    answers = [
        answered("red", "red", "color", 0),
        answered("blue", "red", "color", 1),
        answered("2", "2", "count", 0),
        answered("3", "3", "count", 1),
    ]
    accuracy = answer_accuracy(answers)
    assert list(accuracy) == ["color", "count", "all"]
    assert [accuracy[kind].value for kind in accuracy] == [0.5, 1.0, 0.75]
    assert (accuracy["all"].n, accuracy["all"].num_pictures) == (4, 2)


def test_mask_iou_counts_pixels():
    one, other = np.zeros((2, 4, 4), dtype=bool)
    one[:2], other[1:3] = True, True
    assert mask_iou(one, other) == pytest.approx(4 / 12)
    assert mask_iou(one, one) == 1.0
    assert mask_iou(one, np.zeros((4, 4))) == 0.0
    assert mask_iou(np.zeros((4, 4)), np.zeros((4, 4))) == 1.0
    with pytest.raises(VlaError, match=r"\(4, 4\) and \(4, 5\)"):
        mask_iou(one, np.zeros((4, 5)))


def test_a_phrase_without_a_mask_counts_zero():
    estimate = referring_iou([0.8, None, 0.6, 0.6], pictures=[0, 0, 1, 1])
    assert estimate.value == pytest.approx(0.5)
    assert (estimate.n, estimate.num_pictures) == (4, 2)
    assert (estimate.low, estimate.high) == pytest.approx((0.4, 0.6))


def test_codec_iou_cuts_probabilities_at_the_threshold():
    masks = np.zeros((2, 2, 2))
    masks[:, 0] = 1
    decoded = np.array([[[0.9, 0.6], [0.1, 0.2]], [[0.9, 0.4], [0.1, 0.2]]])
    assert codec_iou(masks, decoded).value == pytest.approx((1.0 + 0.5) / 2)
    assert codec_iou(masks, decoded, threshold=0.3).value == 1.0
