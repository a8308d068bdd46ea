import pytest
import torch
from fake_scenes import fake_scenes
from tiny_answerable import stage_config, tiny_answerable

from vla.checkpoints.answering import load_answerable
from vla.errors import CheckpointError, ConfigError, DatasetError
from vla.losses.places import answer_nats, mean_of_answers
from vla.models.answering import Answering
from vla.models.vision.position_tables import resize_position_table
from vla.training.config import Part
from vla.training.multimodal import (
    AnswerObjective,
    multimodal_lesson,
    new_student,
    pretrain_multimodal,
)
from vla.training.multimodal_model import grown
from vla.training.pretrain import run_lesson
from vla.training.pretrain_config import Stage

ROWS = [*fake_scenes(8, size=16), *fake_scenes(4, first_seed=1_000_000, size=16)]


class Silent:
    def log(self, metrics, step):
        pass

    def close(self):
        pass


class StopsAt(Silent):
    def __init__(self, step):
        self.step = step

    def log(self, metrics, step):
        if step == self.step:
            raise KeyboardInterrupt


def _weight(student):
    return student.backbone.decoder.token_embedding.weight


def _run(student, cfg, path, examine=None, tracker=None):
    lesson = multimodal_lesson(cfg, student, ROWS, examine)
    return run_lesson(lesson, cfg, path, tracker or Silent())


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = tiny_answerable(ROWS)
    _run(whole, stage_config(6), tmp_path / "whole")
    cut = stage_config(6, checkpoint_every=3, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        _run(tiny_answerable(ROWS), cut, tmp_path / "cut", tracker=StopsAt(4))
    cfg = stage_config(6)
    cfg.resume = True
    resumed = load_answerable(tmp_path / "cut")
    assert not torch.equal(_weight(resumed), _weight(whole))
    _run(resumed, cfg, tmp_path / "cut")
    weights = resumed.backbone.state_dict()
    for name, expected in whole.backbone.state_dict().items():
        assert torch.equal(weights[name], expected), name


def test_what_is_frozen_stays_as_it_was(tmp_path):
    student = tiny_answerable(ROWS)
    before = {name: p.clone() for name, p in student.backbone.named_parameters()}
    _run(student, stage_config(2, frozen_parts=[Part.VISION]), tmp_path)
    moved = {
        name.split(".")[0]
        for name, p in student.backbone.named_parameters()
        if not torch.equal(p, before[name])
    }
    assert moved == {"connector", "decoder"}


def test_the_loss_looks_at_answers_alone():
    student = tiny_answerable(ROWS)
    lesson = multimodal_lesson(stage_config(1), student, ROWS)
    batch = lesson.batches.at(0)
    objective = AnswerObjective(cfg=stage_config(1).multimodal, tokenizer=student.tokenizer)
    model = Answering(student.backbone)
    loss, terms = objective(model, batch)
    output = model(batch.ids, batch.valid, batch.suffix_mask, batch.pictures, batch.documents)
    assert len(output.ids) == int(batch.suffix_mask.sum())
    by_hand = [
        -output.logits[output.answers == number].log_softmax(-1)[torch.arange(len(ids)), ids].mean()
        for number in range(int(output.answers.max()) + 1)
        for ids in [output.ids[output.answers == number]]
    ]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    assert terms.keys() == {"answer"}


def test_soft_places_reward_a_near_miss_and_leave_words_alone():
    logits = torch.zeros(3, 20)
    logits[0, 11], logits[1, 18], logits[2, 3] = 5.0, 5.0, 5.0
    ids = torch.tensor([10, 10, 3])  # one place off, eight places off, a word
    nats = answer_nats(logits, ids, first_location=10, num_locations=10, sigma=1.0)
    hard = answer_nats(logits, ids)
    assert nats[0] < nats[1]
    assert hard[0] == hard[1]
    assert nats[2] == hard[2]


def test_every_answer_counts_alike_however_long():
    nats = torch.tensor([1.0, 4.0, 4.0, 4.0])
    mean = mean_of_answers(nats, torch.tensor([0, 1, 1, 1]))
    torch.testing.assert_close(mean, torch.tensor(2.5))


def test_a_higher_resolution_interpolates_the_places_of_patches():
    student = tiny_answerable(ROWS)
    larger = grown(student.backbone, 32)
    table = student.backbone.vision.position_table
    expected = resize_position_table(table, 4, resampling=student.backbone.config.tower.resampling)
    torch.testing.assert_close(larger.vision.position_table, expected)
    assert larger.num_image_tokens((3, 16, 16)) == 16


def test_stage_3_starts_from_a_model(tmp_path):
    cfg = stage_config(1)
    cfg.stage = Stage.TRANSFER
    with pytest.raises(ConfigError, match=r"multimodal\.init_from"):
        new_student(cfg, None, ROWS)
    _run(tiny_answerable(ROWS), stage_config(1), tmp_path / "small")
    cfg.image_size, cfg.multimodal.init_from = 32, str(tmp_path / "small")
    _run(new_student(cfg, None, ROWS), cfg, tmp_path / "large")
    assert load_answerable(tmp_path / "large").backbone.config.image_size == 32


def test_generated_answers_are_measured_while_training(tmp_path):
    asked = []

    def examine(student, rows):
        asked.append([row.scene_seed for row in rows])
        return {"vqa": 0.5}

    done = _run(tiny_answerable(ROWS), stage_config(1), tmp_path, examine)
    assert done["metrics"]["vqa"] == 0.5
    assert asked[-1] == [1_000_000, 1_000_001, 1_000_002, 1_000_003]


def test_scenes_to_train_on_and_to_measure_with_are_both_needed():
    cfg = stage_config(1)
    with pytest.raises(DatasetError, match="from 1,000,000 on"):
        multimodal_lesson(cfg, tiny_answerable(ROWS), ROWS[:8])


def test_no_scenes_are_said_so(tmp_path):
    with pytest.raises(DatasetError, match="no scenes given"):
        pretrain_multimodal(stage_config(1), tmp_path, Silent())


def test_a_checkpoint_of_another_kind_does_not_answer(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_answerable(tmp_path)
