"""Labelled scenes: what they say is true, of one thing only, and visible."""

import re
from collections import Counter

import numpy as np
import pytest
from scene_oracle import answers, pattern, resolve, wrong_answers

from envs.labels.config import Family, SceneLabelsConfig, parse_size
from envs.labels.detail import MAX_DOTS
from envs.labels.labeller import Labeller
from envs.labels.motion import _pose, draw_plan, film, motion_facts, watch
from envs.labels.wording import EXTREME_WORDS, QUESTIONS, RELATION_WORDS, SUPPORT_WORDS
from vla.errors import ConfigError

HELD_OUT = 1_000_000
SEEDS = [*range(24), *range(HELD_OUT, HELD_OUT + 8)]


@pytest.fixture(scope="module")
def labellers():
    made = {family: Labeller(SceneLabelsConfig(family=family)) for family in Family}
    made["hard"] = Labeller(SceneLabelsConfig(sizes=["128x64", "64x128", "64x64"]), "hard")
    yield made
    for labeller in made.values():
        labeller.close()


@pytest.mark.parametrize("family", [Family.STILL, Family.WIDE, Family.DETAIL, "hard"])
def test_every_answer_is_what_masks_and_state_say(labellers, family):
    labeller = labellers[family]
    asked = Counter()
    for seed in SEEDS:
        scene = labeller.draw(seed)
        assert wrong_answers(scene, labeller.studio.scene) == [], seed
        asked.update(question.kind for question in scene.questions)
    assert asked["relation"] > 10
    assert asked["color"] > 10


@pytest.mark.parametrize("family", [Family.STILL, Family.WIDE, Family.MOTION])
def test_every_phrase_is_true_of_exactly_one_thing(labellers, family):
    num_phrases = 0
    for seed in SEEDS:
        scene = labellers[family].draw(seed)
        for thing, shown in zip(scene.objects, scene.view.things, strict=True):
            for phrase in (*thing.phrases, *thing.held_out_phrases):
                assert resolve(scene.view, phrase) == [shown], (seed, phrase)
                num_phrases += 1
    assert num_phrases > 100


@pytest.mark.parametrize("family", [Family.STILL, Family.MOTION])
def test_boxes_are_tight_around_masks_and_masks_do_not_overlap(labellers, family):
    for seed in range(20):
        scene = labellers[family].draw(seed)
        height, width = scene.frames.shape[1:3]
        for thing in scene.objects:
            y0, x0, y1, x1 = np.round(np.array(thing.box) * [height, width, height, width]).astype(
                int
            )
            inside = thing.mask[y0:y1, x0:x1]
            assert inside.sum() == thing.mask.sum() == thing.num_pixels
            edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all(edge.any() for edge in edges)
        assert sum(thing.mask.astype(int) for thing in scene.objects).max() <= 1


def test_masks_cover_the_pixels_of_the_named_colour(labellers):
    reds = {"red": 0, "green": 1, "blue": 2}
    checked = 0
    for seed in range(40):
        scene = labellers[Family.STILL].draw(seed)
        for thing in scene.objects:
            if thing.color in reds and thing.is_clear:
                color = scene.frames[-1][thing.mask].astype(float).mean(axis=0)
                assert color.argmax() == reds[thing.color], (seed, thing.name, color)
                checked += 1
    assert checked > 20


def test_a_scene_depends_on_its_seed_alone(labellers):
    labeller = labellers[Family.STILL]
    first = labeller.draw(7)
    labeller.draw(8)
    again = labeller.draw(7)
    assert np.array_equal(first.frames, again.frames)
    assert (first.captions, first.questions) == (again.captions, again.questions)


def test_training_scenes_hold_no_held_out_words(labellers):
    patterns = [
        pattern(template) for phrasings in QUESTIONS.values() for template in phrasings.held_out
    ]
    for seed in range(40):
        scene = labellers[Family.STILL].draw(seed)
        assert all(question.split == "train" for question in scene.questions)
        assert not any(thing.held_out_phrases for thing in scene.objects)
        for question in scene.questions:
            assert not any(told.fullmatch(question.question) for told in patterns), question


def test_held_out_scenes_ask_everything_in_both_wordings(labellers):
    scene = labellers[Family.STILL].draw(HELD_OUT)
    by_split = {
        split: [(q.kind, q.answer) for q in scene.questions if q.split == split]
        for split in ("train", "held_out")
    }
    assert by_split["train"] == by_split["held_out"] != []


@pytest.mark.parametrize("table", [QUESTIONS, EXTREME_WORDS, RELATION_WORDS, SUPPORT_WORDS])
def test_no_wording_is_in_both_splits(table):
    for phrasings in table.values():
        assert not set(phrasings.train) & set(phrasings.held_out)


def test_dots_in_the_picture_are_as_many_as_the_answer_says():
    labeller = Labeller(SceneLabelsConfig(family=Family.DETAIL, sizes=["896x896"]))
    checked = Counter()
    for seed in range(12):
        scene = labeller.draw(seed)
        for question in scene.questions:
            found = re.search("(the .*?)\\??$", question.question)
            if question.kind == "detail" and question.answer.isdigit() and found:
                phrase = found[1].split("dots on ")[-1]
                (thing,) = resolve(scene.view, phrase)
                assert _num_blobs(scene.frames[0], thing) == int(question.answer), (seed, question)
                checked[question.answer] += 1
    labeller.close()
    assert len(checked) == MAX_DOTS


def test_motion_answers_agree_with_the_masks_of_first_and_last_frame(labellers):
    studio = labellers[Family.MOTION].studio
    checked = Counter()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        plan, name, camera = draw_plan(studio, (96, 96), rng)
        views = watch(studio, (96, 96), plan, name, camera)
        for fact in motion_facts(plan, views, rng):
            checked[fact.key] += 1
            moves = {t.name: _shift(views, t.name) for t in views[0].clear if t.is_object}
            speed = {thing: float(np.hypot(*shift)) for thing, shift in moves.items()}
            match fact.key:
                case "motion_direction":
                    assert _direction(moves[_spoken(fact.slots["thing"])]) == fact.answer, seed
                case "motion_which":
                    assert max(speed, key=speed.__getitem__) == fact.answer, seed
                case "motion_moving":
                    is_moving = speed[_spoken(fact.slots["thing"])] > 2.0
                    assert {True: "yes", False: "no"}[is_moving] == fact.answer, seed
    assert min(checked[f"motion_{key}"] for key in ("direction", "which", "moving", "faster")) > 3


def test_a_faster_object_goes_farther_along_the_table(labellers):
    studio = labellers[Family.MOTION].studio
    checked = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        plan, name, camera = draw_plan(studio, (96, 96), rng)
        for fact in motion_facts(plan, watch(studio, (96, 96), plan, name, camera), rng):
            if fact.key == "motion_faster":
                places = {}
                for frame in (0, plan.num_frames - 1):
                    _pose(studio, plan, frame)
                    for slot, spec in enumerate(studio.scene.objects):
                        places.setdefault(spec.name, []).append(studio.scene.object_position(slot))
                gone = {thing: np.linalg.norm(b - a) for thing, (a, b) in places.items()}
                other = {_spoken(fact.slots[slot]) for slot in ("thing", "other")} - {fact.answer}
                assert gone[fact.answer] >= 1.75 * gone[other.pop()]
                checked += 1
    assert checked > 3


def test_a_clip_backwards_has_the_same_frames_and_the_opposite_answers(labellers):
    studio = labellers[Family.MOTION].studio
    opposite = {"left": "right", "towards the camera": "away", "open": "close"}
    opposite |= {value: key for key, value in opposite.items()}
    turned = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        plan, name, camera = draw_plan(studio, (96, 96), rng)
        back = plan.reversed()
        assert np.array_equal(
            film(studio, (96, 96), plan, camera)[::-1], film(studio, (96, 96), back, camera)
        )
        told = [
            motion_facts(p, watch(studio, (96, 96), p, name, camera), np.random.default_rng(0))
            for p in (plan, back)
        ]
        for fact, mirrored in zip(*told, strict=True):
            assert fact.key == mirrored.key
            expected = opposite.get(fact.answer, fact.answer)
            assert mirrored.answer == expected, (seed, fact.key)
            turned += expected != fact.answer
    assert turned > 10


def test_either_way_along_a_path_is_equally_likely(labellers):
    answers_given = Counter()
    for seed in range(60):
        for question in labellers[Family.MOTION].draw(seed).questions:
            answers_given[question.answer] += 1
    for a, b in (("left", "right"), ("towards the camera", "away"), ("open", "close")):
        total = answers_given[a] + answers_given[b]
        assert abs(answers_given[a] - answers_given[b]) < 4 * np.sqrt(total), answers_given


def test_the_oracle_refuses_a_wrong_answer(labellers):
    labeller = labellers[Family.STILL]
    scene = labeller.draw(0)
    question = next(q for q in scene.questions if q.kind == "exists")
    found = answers(scene.view, labeller.studio.scene, "exists", question.question)
    assert found == {question.answer}
    assert {"yes": "no", "no": "yes"}[question.answer] not in found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": ["96"]}, "WIDTHxHEIGHT"),
        ({"sizes": ["9000x96"]}, "32 to 1024"),
        ({"cameras": {"side": 1.0}}, "unknown camera 'side'"),
        ({"cameras": {"zoom": 0.0}}, "above 0"),
        ({"cameras": {"zoom": -1.0}}, "expected 0 or more"),
        ({"max_objects": 9}, "expected 1 to 5"),
        ({"min_frames": 8, "max_frames": 4}, "min_frames <= max_frames"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        SceneLabelsConfig(**settings)


def test_sizes_are_written_width_first():
    assert parse_size("192x96") == (96, 192)


def _num_blobs(frame: np.ndarray, thing) -> int:
    """Returns how many separate patches of ink are on a thing: white, or black on pale colours."""
    y, x = np.nonzero(thing.mask)
    inside = frame[y.min() : y.max() + 1, x.min() : x.max() + 1].astype(int)
    mask = thing.mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
    pale = thing.color in ("yellow", "cyan")
    ink = mask & (inside.max(axis=2) < 40 if pale else inside.min(axis=2) > 130)
    count = 0
    while ink.any():
        count += 1
        todo = [tuple(np.argwhere(ink)[0])]
        while todo:
            row, column = todo.pop()
            if 0 <= row < ink.shape[0] and 0 <= column < ink.shape[1] and ink[row, column]:
                ink[row, column] = False
                todo += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return count


def _shift(views, name: str) -> np.ndarray:
    """Returns (right, down), how far a thing's pixels went from the first to the last frame."""
    ends = []
    for view in (views[0], views[-1]):
        thing = next((t for t in view.things if t.name == name), None)
        if thing is None:
            return np.zeros(2)
        ends.append(np.argwhere(thing.mask).mean(axis=0)[::-1])
    return ends[1] - ends[0]


def _direction(shift: np.ndarray) -> str:
    if abs(shift[0]) > abs(shift[1]):
        return "right" if shift[0] > 0 else "left"
    return "towards the camera" if shift[1] > 0 else "away"


def _spoken(expression) -> str:
    return expression.text(np.random.default_rng(0), "train").removeprefix("the ")
