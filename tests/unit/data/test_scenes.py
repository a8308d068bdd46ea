"""Labelled scenes on disk: what is read is what was written, whatever was killed in between."""

import datasets
import numpy as np
import pytest

from vla.data import scenes_write
from vla.data.scene_rows import (
    SceneObject,
    SceneQuestion,
    SceneRow,
    encode_png,
    scene_features,
    scene_schema,
)  # fmt: skip
from vla.data.scene_sheet import write_scene_sheet
from vla.data.scenes import open_scenes
from vla.data.scenes_write import SceneJob, write_scenes
from vla.errors import DatasetError

NUM_ROWS = 23


def draw(seed: int) -> SceneRow:
    rng = np.random.default_rng(seed)
    size = (40, 32) if seed % 3 else (32, 64)
    num_frames = 3 if seed % 5 == 0 else 1
    mask = np.zeros(size, bool)
    mask[2:9, 3 : 5 + seed % 20] = True
    thing = SceneObject(
        name="red cube", color="red", shape="cube", box=(0.1, 0.2, 0.3, 0.4), mask_png=encode_png(mask),
        num_pixels=int(mask.sum()), is_clear=True, phrases=("the red cube",),
    )  # fmt: skip
    kind = "count" if seed % 2 else "color"
    return SceneRow(
        frames=rng.integers(0, 255, (num_frames, 3, *size), dtype=np.uint8),
        camera="zoom" if seed % 4 else "front",
        scene_seed=seed,
        kind="clip" if num_frames > 1 else "still",
        objects=(thing,),
        captions=("a red cube",),
        questions=(
            SceneQuestion(kind=kind, question="q?", answer=str(seed)),
            SceneQuestion(kind=kind, question="other words?", answer=str(seed), split="held_out"),
        ),
    )


def make_draw():
    return draw


def job(root, num_rows=NUM_ROWS, **identity) -> SceneJob:
    return SceneJob(
        make_draw=make_draw, root=root, num_rows=num_rows, first_seed=0, identity=identity
    )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(scenes_write, "ROWS_PER_SHARD", 5)


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.parquet")} | {
        "meta": (root / "meta/scenes.json").read_bytes()
    }


@pytest.mark.parametrize("cache", [True, False])
def test_rows_come_back_as_they_were_drawn(tmp_path, cache):
    write_scenes(job(tmp_path), num_workers=0)
    scenes = open_scenes(tmp_path, cache=cache)
    assert len(scenes) == NUM_ROWS
    for index in (0, 22, 7, 15, 1):
        row, drawn = scenes[index], draw(index)
        assert np.array_equal(row.frames, drawn.frames)
        assert np.array_equal(row.objects[0].mask, drawn.objects[0].mask)
        assert row.objects[0].box == pytest.approx(drawn.objects[0].box)
        assert (row.captions, row.questions, row.kind, row.camera, row.scene_seed) == (
            drawn.captions, drawn.questions, drawn.kind, drawn.camera, drawn.scene_seed,
        )  # fmt: skip


def test_the_schema_is_that_of_datasets():
    features = datasets.Features.from_dict(scene_features())
    assert features.arrow_schema == scene_schema()
    assert features.arrow_schema.metadata == scene_schema().metadata


def test_interrupted_and_extended_runs_end_as_an_uninterrupted_one(tmp_path):
    write_scenes(job(tmp_path / "straight"), num_workers=0)
    broken = tmp_path / "broken"
    write_scenes(job(broken, 7), num_workers=0)
    write_scenes(job(broken, 19), num_workers=0)
    (broken / "data/scenes-00001.parquet").unlink()  # a shard that a kill prevented
    (broken / "data/.scenes-00002.parquet.1.tmp").write_bytes(b"torn")
    write_scenes(job(broken), num_workers=0)
    assert files(broken) == files(tmp_path / "straight")
    assert not list(broken.glob("data/.*"))


def test_other_settings_and_other_datasets_are_refused(tmp_path):
    write_scenes(job(tmp_path / "a", family="still"), num_workers=0)
    with pytest.raises(DatasetError, match="family='still', not 'wide'"):
        write_scenes(job(tmp_path / "a", family="wide"), num_workers=0)
    (tmp_path / "b/meta").mkdir(parents=True)
    with pytest.raises(DatasetError, match="another dataset"):
        write_scenes(job(tmp_path / "b"), num_workers=0)
    with pytest.raises(DatasetError, match="labels=true"):
        open_scenes(tmp_path / "b")


def test_filters_leave_the_rows_they_name(tmp_path):
    write_scenes(job(tmp_path), num_workers=0)
    scenes = open_scenes(tmp_path, cache=False)
    rows = range(NUM_ROWS)
    assert scenes.where(size=(32, 64)).rows.tolist() == [i for i in rows if i % 3 == 0]
    assert scenes.where(kind="clip", camera="zoom").rows.tolist() == [5, 10, 15]
    assert scenes.where(question="count").rows.tolist() == [i for i in rows if i % 2]
    assert scenes.where(kind="clip")[1].scene_seed == 5
    with pytest.raises(DatasetError, match="no scene of"):
        scenes.where(size=(9, 9))
    with pytest.raises(DatasetError, match="unknown kind of question"):
        scenes.where(question="smell")


def test_texts_are_captions_and_answers_in_training_words(tmp_path):
    write_scenes(job(tmp_path, 3), num_workers=0)
    assert open_scenes(tmp_path, cache=False).texts([1]) == ["a red cube", "q? 1"]


def test_a_crash_names_the_seed(tmp_path):
    def crash(seed: int) -> SceneRow:
        raise ZeroDivisionError(seed)

    broken = SceneJob(make_draw=lambda: crash, root=tmp_path, num_rows=3, first_seed=4, identity={})
    with pytest.raises(DatasetError, match="seed 4 crashed with ZeroDivisionError"):
        write_scenes(broken, num_workers=0)


def test_the_contact_sheet_shows_stills_and_clips(tmp_path):
    write_scenes(job(tmp_path / "scenes"), num_workers=0)
    write_scene_sheet(tmp_path / "scenes", tmp_path / "sheet.png", num_rows=6)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
