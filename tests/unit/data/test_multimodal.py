from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_scenes import fake_scene, fake_scenes

from vla.data.multimodal import MultimodalBatches, QuestionConfig, label_pictures
from vla.data.scene_tasks import TaskKind, TaskWeights, all_tasks, detect_absent, draw_tasks
from vla.errors import DatasetError
from vla.tokenizers.prompt_answer import AnswerPrompts, PromptFamily
from vla.tokenizers.scene_vocabulary import train_scene_tokenizer

ROWS = fake_scenes(6)
TOKENIZER = train_scene_tokenizer([text for row in ROWS for text in row.captions], 400)
PROMPTS = AnswerPrompts(TOKENIZER, PromptFamily.PALIGEMMA)


def _codes(masks):
    return (masks.flatten(1)[:, :16] > 0.5).long()


def _batches(pictures, **cfg):
    return MultimodalBatches(
        pictures,
        PROMPTS,
        lambda shape: 4,
        batch_size=3,
        names=["red cube", "green cube", "blue cube"],
        seed=3,
        cfg=QuestionConfig(tasks_per_picture=5, **cfg),
    )


def test_a_picture_is_asked_for_captions_answers_boxes_and_masks():
    (picture,) = label_pictures([ROWS[0]], encode_masks=_codes)
    tasks = all_tasks(picture)
    item = picture.objects[0]
    assert tasks[TaskKind.CAPTION][0].answer == ROWS[0].captions[0]
    assert tasks[TaskKind.ANSWER][0].instruction == "answer en how many cubes are there?"
    detect = tasks[TaskKind.DETECT][0]
    assert detect.instruction == f"detect {item.name}"
    assert detect.answer.count("<loc") == 4
    segment = tasks[TaskKind.SEGMENT][0]
    assert segment.instruction == f"segment {item.phrases[0]}"
    assert segment.answer.count("<seg") == 16
    assert segment.answer.endswith(item.phrases[0])


def test_several_objects_of_one_name_are_listed_from_left_to_right():
    (picture,) = label_pictures([ROWS[0]])
    item = picture.objects[0]
    boxes = [(0.5, 0.6, 0.7, 0.8), (0.1, 0.2, 0.3, 0.4)]
    twice = replace(picture, objects=tuple(replace(item, box=box) for box in boxes))
    (task,) = all_tasks(twice)[TaskKind.DETECT]
    assert task.objects == (1, 0)
    assert task.answer.count(" ; ") == 1


def test_what_is_not_there_is_answered_with_none():
    assert detect_absent("blue ball").answer == "none"
    (picture,) = label_pictures([fake_scene(0)])
    weights = TaskWeights(caption=0, answer=0, detect=1, segment=0, absent_fraction=1.0)
    names = ["red cube", "green cube", "blue cube"]
    tasks = draw_tasks(picture, np.random.default_rng(0), 4, weights, names)
    present = {item.name for item in picture.objects}
    assert {task.answer for task in tasks} == {"none"}
    assert not {task.instruction.removeprefix("detect ") for task in tasks} & present


def test_a_name_that_an_unclear_object_has_is_not_detected():
    (picture,) = label_pictures([ROWS[0]])
    unclear = replace(picture.objects[0], is_clear=False)
    blurred = replace(picture, objects=(unclear, *picture.objects[1:]))
    assert unclear.name not in {task.answer for task in all_tasks(blurred)[TaskKind.DETECT]}
    assert len(all_tasks(blurred)[TaskKind.DETECT]) == len(picture.objects) - 1


def test_wordings_that_are_held_out_are_never_trained_on():
    (picture,) = label_pictures([ROWS[0]])
    assert "count all of the cubes" not in {text for _, text, _ in picture.questions}


def test_without_a_codec_nothing_is_segmented():
    (picture,) = label_pictures([ROWS[0]])
    assert not all_tasks(picture)[TaskKind.SEGMENT]


def test_clips_are_left_out_unless_asked_for():
    rows = [fake_scene(0, num_frames=3), fake_scene(1)]
    assert len(label_pictures(rows)) == 1
    assert [len(p.frames) for p in label_pictures(rows, has_clips=True)] == [3, 1]


def test_pictures_are_stretched_to_the_squares_that_a_family_reads():
    (picture,) = label_pictures([ROWS[0]], image_size=16)
    assert picture.frames.shape == (1, 3, 16, 16)


def test_a_step_always_has_the_same_batch_and_another_step_another():
    pictures = label_pictures(ROWS, encode_masks=_codes)
    first, again = _batches(pictures).at(4), _batches(pictures).at(4)
    assert torch.equal(first.ids, again.ids)
    ahead = list(_batches(pictures).prefetch(4, 6))
    assert torch.equal(ahead[0].ids, first.ids)
    assert not torch.equal(ahead[1].ids[:, :40], first.ids[:, :40])


def test_packed_rows_hold_the_questions_that_rows_of_their_own_hold():
    pictures = label_pictures(ROWS, encode_masks=_codes)
    packed, alone = _batches(pictures).at(0), _batches(pictures, is_packed=False).at(0)
    assert alone.documents is None
    assert packed.documents is not None
    assert len(packed.ids) * 5 == len(alone.ids) == len(alone.pictures)
    for row in range(3):
        for number in range(5):
            own = packed.ids[row][(packed.documents[row] == number) & packed.valid[row]]
            whole = alone.ids[5 * row + number][alone.valid[5 * row + number]]
            assert own.tolist() == whole[4:].tolist()


def test_pictures_without_labels_are_refused():
    (picture,) = label_pictures([ROWS[0]])
    bare = replace(picture, objects=(), captions=(), questions=())
    with pytest.raises(DatasetError, match="anything to ask"):
        _batches([bare])
