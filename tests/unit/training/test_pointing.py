"""Pointing at what an answer is about, and places that start alike where they are near."""

import math

import pytest
import torch
from fake_scenes import fake_scenes
from tiny_answerable import stage_config, tiny_answerable

from vla.errors import ConfigError
from vla.losses.places import answer_nats, pointing_nats, smooth_locations
from vla.losses.suffix import Mean
from vla.models.answering import Answering
from vla.tokenizers.loc_seg import LOCATION_TOKENS, NUM_CODEWORDS, NUM_LOCATIONS
from vla.tokenizers.prompt_answer import PromptFamily
from vla.training.multimodal import multimodal_lesson, new_student
from vla.training.pretrain import run_lesson

ROWS = [*fake_scenes(8, size=16), *fake_scenes(4, first_seed=1_000_000, size=16)]


class Silent:
    def log(self, metrics, step):
        pass

    def close(self):
        pass


def _pointing_config(steps):
    cfg = stage_config(steps)
    cfg.multimodal.pointing_weight = 1.0
    return cfg


def test_pointing_counts_what_falls_into_the_box():
    logits = torch.zeros(2, 16)
    logits[0, 5] = 3.0
    boxes = torch.tensor([[0.25, 0.25, 0.5, 0.75], [-1.0, -1.0, -1.0, -1.0]])  # patches 5 and 6
    by_hand = -math.log((math.exp(3.0) + 1) / (math.exp(3.0) + 15))
    torch.testing.assert_close(pointing_nats(logits, boxes), torch.tensor(by_hand))
    assert pointing_nats(logits, boxes[1:].expand(2, 4)) == 0


def test_an_object_smaller_than_a_patch_is_in_the_patch_of_its_middle():
    logits = torch.full((1, 16), -20.0)
    logits[0, 10] = 20.0
    assert pointing_nats(logits, torch.tensor([[0.51, 0.51, 0.6, 0.6]])) < 1e-3
    assert pointing_nats(logits, torch.tensor([[0.01, 0.51, 0.1, 0.6]])) > 10


def test_boxes_of_a_batch_stand_in_the_order_of_its_answers():
    student = tiny_answerable(ROWS)
    batch = multimodal_lesson(stage_config(1), student, ROWS).batches.at(0)
    assert batch.boxes is not None
    output = Answering(student.backbone)(
        batch.ids, batch.valid, batch.suffix_mask, batch.pictures, batch.documents
    )
    first = student.tokenizer.token_to_id(LOCATION_TOKENS[0])
    assert len(batch.boxes) == int(output.answers.max()) + 1
    for number, box in enumerate(batch.boxes):
        ids = output.ids[output.answers == number]
        said = [int(token) - first for token in ids[:4]]
        if box[0] < 0:
            assert not 0 <= said[0] < NUM_LOCATIONS
        else:
            torch.testing.assert_close(torch.tensor(said) / 1023, box, atol=1e-3, rtol=0)


def test_a_model_learns_to_look_and_nothing_is_added_to_it(tmp_path):
    student = tiny_answerable(ROWS)
    names = set(student.tensors())
    lesson = multimodal_lesson(_pointing_config(60), student, ROWS)
    batch = lesson.batches.at(0)
    _, before = lesson.objective(lesson.model, batch)
    run_lesson(lesson, _pointing_config(60), tmp_path, Silent())
    _, after = lesson.objective(lesson.model, batch)
    assert after["pointing"] < 0.5 * before["pointing"]
    assert set(student.tensors()) == names


def test_where_it_looks_is_what_its_attention_does():
    student = tiny_answerable(ROWS)
    decoder = student.backbone.decoder
    batch = multimodal_lesson(stage_config(1), student, ROWS).batches.at(0)
    kept = {}
    looking = decoder.layers[len(decoder.layers) // 2].attention
    read = looking.read

    def remember(q, k, v, may_attend):
        kept["scores"] = (q[:, 0] * q.shape[-1] ** -0.5) @ k[:, 0].transpose(1, 2)
        return read(q, k, v, may_attend)

    looking.read = remember
    output = Answering(student.backbone, points=True)(
        batch.ids, batch.valid, batch.suffix_mask, batch.pictures, batch.documents
    )
    rows, columns = batch.suffix_mask.nonzero(as_tuple=True)
    num_image_tokens = student.backbone.num_image_tokens((3, 16, 16))
    assert output.pointing is not None
    expected = kept["scores"][rows, columns - 1, :num_image_tokens]
    torch.testing.assert_close(output.pointing, expected)


def test_only_sides_and_masks_of_the_first_object_are_pointed_at():
    cfg = _pointing_config(1)
    student = tiny_answerable(ROWS, has_codec=True)
    lesson = multimodal_lesson(cfg, student, ROWS)
    batch = lesson.batches.at(0)
    output = lesson.model(
        batch.ids, batch.valid, batch.suffix_mask, batch.pictures, batch.documents
    )
    boxes = lesson.objective._boxes(output, batch.boxes)
    first = student.tokenizer.token_to_id(LOCATION_TOKENS[0])
    is_place = (output.ids >= first) & (output.ids < first + NUM_LOCATIONS + NUM_CODEWORDS)
    assert is_place.any()
    assert ((boxes[:, 0] >= 0) <= is_place).all()
    located = batch.boxes[:, 0] >= 0
    counts = torch.bincount(output.answers[boxes[:, 0] >= 0], minlength=len(located))
    assert set(counts[located].tolist()) <= {4, 20}
    assert not counts[~located].any()


def test_locations_can_be_made_to_count_more_than_words():
    cfg = stage_config(1)
    cfg.multimodal.loss_mean = Mean.TOKENS
    lesson = multimodal_lesson(cfg, tiny_answerable(ROWS), ROWS)
    batch = lesson.batches.at(0)
    output = lesson.model(
        batch.ids, batch.valid, batch.suffix_mask, batch.pictures, batch.documents
    )
    first = tiny_answerable(ROWS).tokenizer.token_to_id(LOCATION_TOKENS[0])
    is_location = (output.ids >= first) & (output.ids < first + NUM_LOCATIONS)
    assert 0 < is_location.sum() < len(is_location)
    nats = answer_nats(
        output.logits,
        output.ids,
        first_location=first,
        num_locations=NUM_LOCATIONS,
        sigma=cfg.multimodal.location_sigma,
    )
    cfg.multimodal.location_weight = 3.0
    loss, _ = lesson.objective(lesson.model, batch)
    torch.testing.assert_close(loss, (nats * (1 + 2 * is_location)).mean())


def test_pointing_needs_pictures_that_are_squares():
    cfg = _pointing_config(1)
    cfg.multimodal.family = PromptFamily.QWEN2_VL
    cfg.image_size = 32
    with pytest.raises(ConfigError, match="pointing_weight = 1"):
        multimodal_lesson(cfg, new_student(cfg, None, ROWS), ROWS)


def test_places_start_the_more_alike_the_nearer_they_are():
    table = smooth_locations(1024, 96, 0.04)
    torch.testing.assert_close(table.std(), torch.tensor(0.04), atol=4e-3, rtol=0)
    likeness = table @ table[500]
    assert likeness.argmax() == 500
    assert likeness[500] > likeness[504] > likeness[512] > likeness[700]


def test_a_new_model_starts_with_smooth_places_unless_told_otherwise():
    cfg = stage_config(1)

    def likeness():
        student = new_student(cfg, None, ROWS)
        first = student.tokenizer.token_to_id(LOCATION_TOKENS[0])
        rows = student.backbone.decoder.token_embedding.weight[first : first + 2].detach()
        return float(torch.cosine_similarity(rows[0], rows[1], dim=0))

    assert likeness() > 0.9
    cfg.multimodal.smooth_locations = False
    assert abs(likeness()) < 0.5
