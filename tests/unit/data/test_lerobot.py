import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_data import make_episode, smooth_pictures, write_dataset

from vla.data import frames_cache
from vla.data.layout import ImageStorage, read_info
from vla.data.lerobot import open_frames
from vla.errors import DatasetError

CAMERAS = ["front", "wrist"]


def _rewrite(root: Path, column: str, change) -> None:
    """Replaces a column of the only data file."""
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = change(table.column(column).to_pylist())
    index = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(
            index, table.schema.field(index), pa.array(values, table.schema.field(index).type)
        ),
        path,
    )


def test_frames_know_their_episode_task_and_scene(tmp_path):
    episodes = [
        make_episode(0, 3, scene=7),
        make_episode(1, 2, scene=7),
        make_episode(3, 4, scene=9),
    ]
    frames = open_frames(write_dataset(tmp_path, episodes), cameras=CAMERAS)
    assert frames.episode_index.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert frames.frame_index.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert frames.scene.tolist() == [7, 7, 9]
    assert [frames.tasks[i] for i in frames.task_index[[0, 3, 5]]] == [
        "pick up cube 0",
        "pick up cube 1",
        "pick up cube 0",
    ]
    assert (frames.fps, frames.action_names[-1]) == (10, "gripper")


def test_pictures_are_decoded_once(tmp_path, monkeypatch):
    root = write_dataset(tmp_path)
    first = open_frames(root, cameras=CAMERAS).images["front"]
    monkeypatch.setattr(frames_cache, "_decode", None)  # a second decoding would fail
    again = open_frames(root, cameras=CAMERAS).images["front"]
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(first, again)


def test_a_dataset_that_grew_is_decoded_again_and_the_old_pictures_go(tmp_path):
    root = write_dataset(tmp_path / "a", [make_episode(k, 3) for k in range(2)])
    open_frames(root, cameras=CAMERAS)
    other = write_dataset(tmp_path / "b", [make_episode(k, 3) for k in range(4)])
    shutil.copytree(root / ".frames", other / ".frames")
    assert len(open_frames(other, cameras=CAMERAS).images["front"]) == 12
    assert len(list((other / ".frames").iterdir())) == len(CAMERAS)


def test_a_cache_file_cut_short_is_made_again(tmp_path):
    root = write_dataset(tmp_path)
    whole = np.array(open_frames(root, cameras=["front"]).images["front"])
    (cached,) = (root / ".frames").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    np.testing.assert_array_equal(open_frames(root, cameras=["front"]).images["front"], whole)


def test_pictures_can_be_resized_while_decoding(tmp_path):
    frames = open_frames(write_dataset(tmp_path, size=32), cameras=CAMERAS, image_size=16)
    assert frames.images["wrist"].shape == (15, 16, 16, 3)


def test_video_frames_are_those_that_were_recorded(tmp_path):
    episodes = [make_episode(k, 4 + k, size=64) for k in range(3)]
    root = write_dataset(tmp_path, episodes, ImageStorage.VIDEO, size=64)
    shown = open_frames(root, cameras=CAMERAS).images["wrist"].astype(int)
    recorded = np.concatenate([e.images["wrist"] for e in episodes]).astype(int)
    errors = np.abs(shown[:, None] - recorded[None]).mean(
        axis=(2, 3, 4)
    )  # every shown frame against every recorded one
    assert errors.argmin(axis=1).tolist() == list(range(15))
    assert errors.diagonal().max() < 6


def test_a_missing_camera_lists_those_there_are(tmp_path):
    with pytest.raises(DatasetError, match="unknown camera 'side'; choose one of front, wrist"):
        open_frames(write_dataset(tmp_path), cameras=["front", "side"])


def test_another_action_width_is_refused(tmp_path):
    with pytest.raises(
        DatasetError, match=r"action has 7 numbers \(dx, .*\), the policy expects 14"
    ):
        open_frames(write_dataset(tmp_path), cameras=CAMERAS, action_width=14)


def test_another_rate_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="recorded at 10 Hz, the policy acts at 30 Hz"):
        open_frames(write_dataset(tmp_path), cameras=CAMERAS, rate_hz=30.0)


def test_a_full_disk_is_noticed_before_decoding(tmp_path, monkeypatch):
    root = write_dataset(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DatasetError, match=r"decoded pictures of .*front take 0.0 GB"):
        open_frames(root, cameras=CAMERAS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_action_that_is_not_finite_names_episode_and_frame(tmp_path, value):
    root = write_dataset(tmp_path)

    def change(rows):
        rows[4 + 2][3] = value  # third frame of the second episode
        return rows

    _rewrite(root, "action", change)
    with pytest.raises(DatasetError, match=r"episode 1, frame 2: action droll is (nan|inf)"):
        open_frames(root, cameras=CAMERAS, cache=False)


def test_a_picture_that_cannot_be_decoded_names_episode_and_frame(tmp_path):
    root = write_dataset(tmp_path)

    def change(rows):
        rows[10]["bytes"] = rows[10]["bytes"][:40]
        return rows

    _rewrite(root, "observation.images.wrist", change)
    with pytest.raises(
        DatasetError, match=r"episode 2, frame 1: observation.images.wrist cannot be decoded"
    ):
        open_frames(root, cameras=CAMERAS)
    assert not list((root / ".frames").glob("wrist*"))


def test_a_video_that_ends_early_names_episode_and_frame(tmp_path):
    root = write_dataset(tmp_path / "whole", storage=ImageStorage.VIDEO)
    short = write_dataset(tmp_path / "short", [make_episode(0, 6)], storage=ImageStorage.VIDEO)
    name = "videos/observation.images.front/chunk-000/file-000.mp4"
    shutil.copy(short / name, root / name)
    with pytest.raises(
        DatasetError, match=r"episode 1, frame 2: .*file-000.mp4 ends before 0.600 s"
    ):
        open_frames(root, cameras=CAMERAS)


@pytest.mark.parametrize("storage", list(ImageStorage))
def test_truncated_files_are_refused_in_one_line(tmp_path, storage):
    root = write_dataset(tmp_path, storage=storage)
    broken = next(root.rglob("*.mp4" if storage is ImageStorage.VIDEO else "data/**/*.parquet"))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 3])
    with pytest.raises(DatasetError, match=r"cannot (read|decode)") as caught:
        open_frames(root, cameras=CAMERAS)
    assert "\n" not in str(caught.value)


def test_rows_beyond_the_committed_episodes_are_ignored(tmp_path):
    root = write_dataset(tmp_path / "a")
    later = write_dataset(tmp_path / "b", [make_episode(9, 8)])
    shutil.copy(later / "data/chunk-000/file-000.parquet", root / "data/chunk-000/file-001.parquet")
    assert len(open_frames(root, cameras=CAMERAS)) == 15


def test_frames_out_of_order_are_refused(tmp_path):
    root = write_dataset(tmp_path)
    _rewrite(root, "frame_index", lambda rows: [*rows[:5], 7, *rows[6:]])
    with pytest.raises(DatasetError, match="episode 1: frame 7 stands where frame 1 belongs"):
        open_frames(root, cameras=CAMERAS)


def test_a_folder_without_a_dataset_says_how_to_make_one(tmp_path):
    with pytest.raises(DatasetError, match=r"no LeRobotDataset at .*vla collect"):
        open_frames(tmp_path, cameras=CAMERAS)


def test_an_older_format_is_refused_by_version(tmp_path):
    root = write_dataset(tmp_path)
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace('"v3.0"', '"v2.1"'))
    with pytest.raises(DatasetError, match=r"LeRobotDataset v2.1, expected v3.x"):
        open_frames(root, cameras=CAMERAS)


@pytest.mark.parametrize("storage", list(ImageStorage))
def test_single_pictures_can_be_picked_without_a_cache(tmp_path, storage):
    root = write_dataset(tmp_path, storage=storage)
    frames = open_frames(root, cameras=["front"], cache=False)
    info = read_info(root)
    ends = frames.episode_ends.tolist()
    source = frames_cache.PictureSource(root, info, "observation.images.front", (15, 16, 16), ends)
    np.testing.assert_array_equal(source.pick([0, 4, 9, 14]), frames.images["front"][[0, 4, 9, 14]])


def test_the_pictures_of_these_tests_differ_from_frame_to_frame():
    pictures = smooth_pictures(3, 16, 0).astype(int)
    assert np.abs(np.diff(pictures, axis=0)).mean() > 2
