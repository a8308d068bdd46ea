"""Stage 2 on eight pictures, and `vla ask` with what it learnt."""

import json

import numpy as np
import pytest
import torch
from fake_scenes import fake_scene, fake_scenes
from PIL import Image
from tiny_answerable import stage_config, tiny_answerable

from vla.checkpoints.answering import load_answerable
from vla.cli import ask, examine
from vla.cli.ask import AskConfig
from vla.cli.ask_drawing import draw_answer, read_picture
from vla.data.scenes_write import SceneJob, write_scenes
from vla.errors import CheckpointError, ConfigError, DatasetError
from vla.evaluation.answering import measure_answers
from vla.inference.answer import Answer, FoundObject, answer
from vla.training.multimodal import multimodal_lesson
from vla.training.pretrain import run_lesson

ROWS = [*fake_scenes(8, size=16), *fake_scenes(4, first_seed=1_000_000, size=16)]


class Silent:
    def log(self, metrics, step):
        pass

    def close(self):
        pass


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    path = tmp_path_factory.mktemp("learnt")
    student, cfg = tiny_answerable(ROWS), stage_config(70)
    run_lesson(multimodal_lesson(cfg, student, ROWS), cfg, path, Silent())
    return student, path


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "table.png"
    Image.fromarray(ROWS[0].frames[0].transpose(1, 2, 0)).save(path)
    return path


def test_a_model_learns_eight_pictures_by_heart(learnt):
    student, _ = learnt
    scores = measure_answers(student, ROWS[:8])
    assert scores.vqa["all"].value == 1.0
    assert scores.ap50 is not None
    assert scores.ap50.value > 0.5


def test_a_checkpoint_answers_as_the_model_that_was_trained(learnt):
    student, path = learnt
    loaded = load_answerable(path)
    shown = torch.from_numpy(ROWS[0].frames[0].copy())
    prompts = ["answer en how many cubes are there?", "caption en"]
    given = [answer(model, [shown] * 2, prompts) for model in (student, loaded)]
    assert [one.text for one in given[0]] == [one.text for one in given[1]]
    assert given[0][0].text == ROWS[0].questions[0].answer


def test_ask_prints_the_answer(learnt, picture, capsys, tmp_path):
    cfg = AskConfig(
        image=str(picture),
        prompt="answer en how many cubes are there?",
        checkpoint=str(learnt[1]),
    )
    summary = ask.run(cfg, tmp_path)
    assert capsys.readouterr().out.splitlines()[0] == ROWS[0].questions[0].answer
    assert summary["drawn"] is None
    json.dumps(summary)


def test_ask_draws_what_it_detects_beside_the_picture(learnt, picture, capsys, tmp_path):
    name = ROWS[0].objects[0].name
    cfg = AskConfig(image=str(picture), prompt=f"detect {name}", checkpoint=str(learnt[1]))
    summary = ask.run(cfg, tmp_path)
    drawn = tmp_path / "table_answer.png"
    assert summary["objects"][0]["label"] == name
    assert summary["drawn"] == str(drawn)
    assert str(drawn) in capsys.readouterr().out
    with Image.open(drawn) as shown:
        assert min(shown.size) >= 480  # 16 px would show nothing


def _scenes(root, first_seed):
    def draw(seed):
        return fake_scene(seed, size=16)

    job = SceneJob(
        make_draw=lambda: draw, root=root, num_rows=4, first_seed=first_seed, identity={}
    )
    write_scenes(job, num_workers=0)
    return str(root)


def test_examine_measures_the_held_out_rows_and_draws_a_page(learnt, capsys, tmp_path):
    scenes = [_scenes(tmp_path / "train", 0), _scenes(tmp_path / "held_out", 1_000_000)]
    cfg = examine.ExamineConfig(checkpoint=str(learnt[1]), scenes=scenes)
    summary = examine.run(cfg, tmp_path)
    assert summary["num_pictures"] == 4
    expected = measure_answers(learnt[0], fake_scenes(4, first_seed=1_000_000, size=16))
    assert summary["vqa"]["all"]["value"] == expected.vqa["all"].value
    page = (tmp_path / "scores.html").read_text(encoding="utf-8")
    assert "boxes, AP50" in page
    assert "boxes, AP50" in capsys.readouterr().out


def test_examine_asks_for_held_out_scenes_where_there_are_none(learnt, tmp_path):
    cfg = examine.ExamineConfig(checkpoint=str(learnt[1]), scenes=[_scenes(tmp_path / "train", 0)])
    with pytest.raises(DatasetError, match="seed=1000000"):
        examine.run(cfg, tmp_path)


def test_a_mask_colours_its_own_pixels(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:16] = True
    found = FoundObject(label="cube", box=(0.25, 0.25, 0.75, 0.5), confidence=0.5, mask=mask)
    draw_answer(
        pixels, Answer(text="", probability=1.0, is_whole=True, objects=[found]), tmp_path / "a.png"
    )
    with Image.open(tmp_path / "a.png") as shown:
        drawn = np.asarray(shown)
    factor = drawn.shape[0] // 32
    middles = drawn[factor // 2 :: factor, factor // 2 :: factor].any(axis=-1)
    assert middles[10:22, 9:15].all()
    assert not middles[28:].any()


@pytest.mark.parametrize(
    ("image", "message"),
    [("absent.png", "does not exist"), ("", "give a picture"), (".", "is a folder")],
)
def test_a_picture_that_is_not_there_is_told_before_the_model_is_loaded(
    image, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        ask.run(AskConfig(image=image, checkpoint="absent"), tmp_path)


@pytest.mark.parametrize(
    ("written", "trained"),
    [
        ("detect the red cube", "detect red cube"),
        ("detect red cube", "detect red cube"),
        ("segment red cube", "segment the red cube"),
        ("segment the cube on the left", "segment the cube on the left"),
        ("how many cubes are there?", "answer en how many cubes are there?"),
        ("answer en is it red?", "answer en is it red?"),
        ("caption en", "caption en"),
        ("", ""),
    ],
)
def test_a_prompt_is_put_as_training_puts_it(written, trained):
    assert ask.as_trained(written) == trained


def test_a_file_that_is_no_picture_is_told(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    with pytest.raises(ConfigError, match="not a picture that can be read"):
        read_picture(path)


def test_a_missing_checkpoint_is_told(picture, tmp_path):
    with pytest.raises(CheckpointError, match="absent"):
        ask.run(AskConfig(image=str(picture), checkpoint=str(tmp_path / "absent")), tmp_path)


@pytest.mark.parametrize(
    ("prompt", "message"), [("detect " + "cube " * 40, "shorten it"), ("  ", "prompt is empty")]
)
def test_a_prompt_that_cannot_be_read_is_told(learnt, picture, tmp_path, prompt, message):
    cfg = AskConfig(image=str(picture), prompt=prompt, checkpoint=str(learnt[1]))
    with pytest.raises(ConfigError, match=message):
        ask.run(cfg, tmp_path)


def test_the_picture_itself_is_never_written_over(learnt, picture, tmp_path):
    before = picture.read_bytes()
    cfg = AskConfig(
        image=str(picture),
        prompt=f"detect {ROWS[0].objects[0].name}",
        checkpoint=str(learnt[1]),
        output=str(picture),
    )
    with pytest.raises(ConfigError, match="is the picture itself"):
        ask.run(cfg, tmp_path)
    assert picture.read_bytes() == before
