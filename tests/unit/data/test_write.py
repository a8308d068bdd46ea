import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fake_data import layout_of, make_episode, write_dataset

from vla.data import write
from vla.data.layout import ImageStorage
from vla.data.lerobot import open_frames
from vla.data.manifest import Manifest, read_manifest
from vla.data.staging import discard_staged, stage_episode, stage_rejection, staged_keys
from vla.data.write import DatasetWriter
from vla.errors import DatasetError

CAMERAS = ["front", "wrist"]


def _stage(root: Path, keys: range, storage: ImageStorage = ImageStorage.IMAGE) -> None:
    for key in keys:
        stage_episode(root, layout_of(storage=storage), key, make_episode(key, 4 + key))


def _read(root: Path):
    return open_frames(root, cameras=CAMERAS, cache=False)


def test_written_pictures_and_numbers_come_back_exactly(tmp_path):
    frames = _read(write_dataset(tmp_path))
    episodes = [make_episode(k, 4 + k) for k in range(3)]
    np.testing.assert_array_equal(
        frames.images["wrist"], np.concatenate([e.images["wrist"] for e in episodes])
    )
    np.testing.assert_array_equal(
        frames.actions, np.concatenate([e.vectors["action"] for e in episodes])
    )
    assert frames.episode_ends.tolist() == [4, 9, 15]
    assert [frames.tasks[i] for i in frames.task_index[[0, 4, 9]]] == [e.task for e in episodes]


def test_episodes_come_in_the_order_of_their_keys_whenever_they_were_staged(tmp_path):
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        for key in (2, 0, 1):
            _stage(tmp_path, range(key, key + 1))
        writer.finalize()
    assert np.diff([0, *_read(tmp_path).episode_ends]).tolist() == [4, 5, 6]


@pytest.mark.parametrize("storage", list(ImageStorage))
def test_a_dataset_can_be_extended_and_equals_one_written_at_once(tmp_path, storage):
    def recorded(root: Path, *groups: range):
        for group in groups:
            with DatasetWriter(root, layout_of(storage=storage), {}) as writer:
                _stage(root, group, storage)
                writer.finalize()
        return _read(root)

    extended = recorded(tmp_path / "extended", range(2), range(2, 4))
    at_once = recorded(tmp_path / "at_once", range(4))
    np.testing.assert_array_equal(extended.images["front"], at_once.images["front"])
    np.testing.assert_array_equal(extended.actions, at_once.actions)
    statistics = [
        json.loads((tmp_path / n / "meta/stats.json").read_text()) for n in ("extended", "at_once")
    ]
    assert statistics[0] == statistics[1]


def test_statistics_are_exact_over_all_frames(tmp_path):
    root = write_dataset(tmp_path)
    frames, stats = _read(root), json.loads((root / "meta/stats.json").read_text())
    np.testing.assert_allclose(
        stats["action"]["q99"], np.quantile(frames.actions.astype(float), 0.99, axis=0)
    )
    red = frames.images["front"][..., 0] / 255
    assert np.shape(stats["observation.images.front"]["q01"]) == (3, 1, 1)
    assert stats["observation.images.front"]["mean"][0][0][0] == pytest.approx(red.mean())
    assert stats["observation.images.front"]["std"][0][0][0] == pytest.approx(red.std())
    assert stats["observation.images.front"]["max"][0][0][0] == pytest.approx(red.max())
    assert stats["action"]["count"] == [len(frames)]


def test_the_metadata_has_the_fields_of_lerobot(tmp_path):
    root = write_dataset(tmp_path)
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (3, 15, 10)
    assert info["features"]["action.executed"]["names"][-1] == "gripper"
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == [
        (0, 4),
        (4, 9),
        (9, 15),
    ]
    assert episodes[1]["stats/index/min"] == [4.0]
    assert pd.read_parquet(root / "meta/tasks.parquet").index.name == "task"


def test_a_file_is_closed_before_it_grows_past_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(write.names, "DATA_FILE_MB", 0.02)
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        _stage(tmp_path, range(5))
        writer.finalize()
    assert len(list((tmp_path / "data").rglob("*.parquet"))) > 1
    assert len(_read(tmp_path)) == 4 + 5 + 6 + 7 + 8


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("name", ["data", "episodes", "tasks", "stats", "recording", "info"])
def test_a_finalize_that_dies_before_any_of_its_files_loses_nothing(tmp_path, monkeypatch, name):
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        _stage(tmp_path, range(2))
        writer.finalize()
    _stage(tmp_path, range(2, 4))
    real_replace = os.replace

    def replace(source, target):
        if name in str(Path(target).relative_to(tmp_path)):
            raise Killed
        real_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed), DatasetWriter(tmp_path, layout_of(), {}) as writer:
            writer.finalize()
    assert _read(tmp_path).num_episodes == 2  # still whole
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        assert writer.finished == {0, 1, 2, 3}
        assert writer.finalize() == 4
    assert np.diff([0, *_read(tmp_path).episode_ends]).tolist() == [4, 5, 6, 7]


def test_a_kill_between_commit_and_clean_up_does_not_double_episodes(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "discard_staged", lambda *_: None)
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        _stage(tmp_path, range(2))
        writer.finalize()
    monkeypatch.setattr(write, "discard_staged", discard_staged)
    assert staged_keys(tmp_path) == {0, 1}
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        assert staged_keys(tmp_path) == set()
        assert writer.finalize() == 2


def test_a_torn_episode_does_not_count(tmp_path):
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        _stage(tmp_path, range(1))
        (tmp_path / "staging" / ".episode-00000001.123.tmp").mkdir()
        assert writer.finalize() == 1
    assert not (tmp_path / "staging").exists()


def test_rejected_attempts_are_remembered_after_the_merge(tmp_path):
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        _stage(tmp_path, range(1))
        stage_rejection(tmp_path, 1, "timeout")
        writer.finalize()
    with DatasetWriter(tmp_path, layout_of(), {}) as writer:
        assert writer.rejected == {1: "timeout"}


def test_other_settings_are_refused_by_name(tmp_path):
    with DatasetWriter(tmp_path, layout_of(), {"env": {"task": "push"}}):
        pass
    with (
        pytest.raises(DatasetError, match=r"env.task='push', not 'stack'"),
        DatasetWriter(tmp_path, layout_of(), {"env": {"task": "stack"}}),
    ):
        pass


def test_two_writers_at_once_are_refused(tmp_path):
    with (
        DatasetWriter(tmp_path, layout_of(), {}),
        pytest.raises(DatasetError, match="another process is writing"),
        DatasetWriter(tmp_path, layout_of(), {}),
    ):
        pass


def test_a_dataset_of_another_writer_is_left_alone(tmp_path):
    root = write_dataset(tmp_path)
    (root / "meta/recording-000003.json").unlink()
    with pytest.raises(DatasetError, match="another writer"), DatasetWriter(root, layout_of(), {}):
        pass


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused_when_it_is_recorded(tmp_path, value):
    episode = make_episode(0)
    episode.vectors["action"][3, 1] = value
    with pytest.raises(DatasetError, match="episode 8, frame 3: action is not finite"):
        stage_episode(tmp_path, layout_of(), 8, episode)


def test_a_missing_camera_or_a_wrong_shape_is_refused_when_it_is_recorded(tmp_path):
    episode = make_episode(0)
    with pytest.raises(
        DatasetError, match=r"front has shape \(5, 16, 16, 3\), expected \(5, 32, 32, 3\)"
    ):
        stage_episode(tmp_path, layout_of(32), 0, episode)
    del episode.images["wrist"]
    with pytest.raises(DatasetError, match=r"has \['front'\].*needs \['front', 'wrist'\]"):
        stage_episode(tmp_path, layout_of(), 0, episode)


def test_finishing_nothing_is_an_error(tmp_path):
    with (
        pytest.raises(DatasetError, match="no finished episode"),
        DatasetWriter(tmp_path, layout_of(), {}) as writer,
    ):
        writer.finalize()


def test_the_manifest_that_counts_is_the_one_info_json_speaks_of(tmp_path):
    root = write_dataset(tmp_path)
    Manifest(identity={}, num_frames=99, episodes=[{"key": k} for k in range(7)]).write(root)
    found = read_manifest(root)
    assert found is not None
    assert len(found.episodes) == 3
