"""Stock lerobot reads what we write, and we read what it writes."""

import json
import warnings

import numpy as np
import pytest
from fake_data import make_episode, smooth_pictures, write_dataset

from vla.data.layout import ImageStorage
from vla.data.lerobot import open_frames

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lerobot.datasets import LeRobotDataset

pytestmark = pytest.mark.filterwarnings("ignore")  # lerobot's own
CAMERAS = ["front", "wrist"]


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    """Keeps the arrow files of `datasets` out of the home folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")


def _picture(item: dict, camera: str) -> np.ndarray:
    return (
        (item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0) * 255).round().astype(int)
    )


@pytest.mark.parametrize("storage", list(ImageStorage))
def test_stock_lerobot_opens_our_dataset(tmp_path, storage):
    episodes = [make_episode(k, 4 + k, size=64) for k in range(4)]
    root = write_dataset(tmp_path / "ours", episodes, storage, size=64)
    theirs = LeRobotDataset("local/ours", root=root, video_backend="pyav")
    ours = open_frames(root, cameras=CAMERAS)
    assert (len(theirs), theirs.num_episodes, theirs.fps) == (22, 4, 10)
    tolerance = 0 if storage is ImageStorage.IMAGE else 2
    for row in range(22):
        item = theirs[row]
        episode, frame = int(item["episode_index"]), int(item["frame_index"])
        recorded = episodes[episode]
        assert (episode, frame) == (ours.episode_index[row], ours.frame_index[row])
        assert float(item["timestamp"]) == pytest.approx(frame / 10)
        assert item["task"] == recorded.task
        np.testing.assert_array_equal(item["action"], recorded.vectors["action"][frame])
        np.testing.assert_array_equal(
            item["action.executed"], recorded.vectors["action.executed"][frame]
        )
        for camera in CAMERAS:
            assert np.abs(_picture(item, camera) - ours.images[camera][row]).max() <= tolerance
            assert np.abs(_picture(item, camera) - recorded.images[camera][frame]).mean() < 8


@pytest.mark.parametrize("storage", list(ImageStorage))
def test_its_statistics_have_quantiles_for_every_feature(tmp_path, storage):
    root = write_dataset(tmp_path / "ours", storage=storage)
    stats = LeRobotDataset("local/ours", root=root).meta.stats
    actions = open_frames(root, cameras=CAMERAS).actions.astype(float)
    for name, q in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(stats["action"][name], np.quantile(actions, q, axis=0))
        for camera in CAMERAS:
            assert stats[f"observation.images.{camera}"][name].shape == (3, 1, 1)
    assert {"min", "max", "mean", "std", "count"} <= stats["observation.state"].keys()
    assert stats["action"]["count"].tolist() == [15]


def test_action_windows_and_single_episodes_work_in_stock_lerobot(tmp_path):
    root = write_dataset(tmp_path / "ours")
    windows = LeRobotDataset("local/ours", root=root, delta_timestamps={"action": [0.0, 0.1, 0.2]})
    assert windows[3]["action"].shape == (3, 7)
    assert windows[3]["action_is_pad"].tolist() == [False, True, True]
    assert len(LeRobotDataset("local/ours", root=root, episodes=[1])) == 5


def test_our_metadata_has_the_form_of_lerobots_own(tmp_path):
    ours = write_dataset(tmp_path / "ours")
    theirs = _recorded_by_lerobot(tmp_path / "theirs", use_videos=False)
    infos = [json.loads((root / "meta/info.json").read_text()) for root in (ours, theirs)]
    assert infos[0].keys() == infos[1].keys()
    assert (
        infos[0]["features"]["observation.images.front"]
        == infos[1]["features"]["observation.images.front"]
    )
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        assert infos[0]["features"][name] == infos[1]["features"][name]
    columns = [
        set(LeRobotDataset("local/x", root=root).meta.episodes.column_names)
        for root in (ours, theirs)
    ]
    assert columns[0] == columns[1]


@pytest.mark.parametrize("use_videos", [False, True])
def test_we_open_a_dataset_recorded_by_stock_lerobot(tmp_path, use_videos):
    root = _recorded_by_lerobot(tmp_path / "theirs", use_videos)
    theirs = LeRobotDataset("local/theirs", root=root, video_backend="pyav")
    ours = open_frames(root, cameras=CAMERAS, action_width=7)
    assert ours.episode_ends.tolist() == [4, 9, 15]
    assert ours.environment_state is None
    for row in range(len(ours)):
        item = theirs[row]
        np.testing.assert_array_equal(item["action"], ours.actions[row])
        assert item["task"] == ours.tasks[ours.task_index[row]]
        for camera in CAMERAS:
            assert np.abs(_picture(item, camera) - ours.images[camera][row]).max() <= (
                2 if use_videos else 0
            )


def _recorded_by_lerobot(root, use_videos: bool):
    names = [f"joint {i}" for i in range(7)]
    picture = {
        "dtype": "video" if use_videos else "image",
        "shape": (64, 64, 3),
        "names": ["height", "width", "channels"],
    }
    if not use_videos:
        picture["shape"] = (16, 16, 3)
    numbers = {"dtype": "float32", "shape": (7,), "names": names}
    features = {f"observation.images.{camera}": dict(picture) for camera in CAMERAS}
    features |= {"observation.state": dict(numbers), "action": dict(numbers)}
    dataset = LeRobotDataset.create(
        "local/theirs", fps=10, features=features, root=root, use_videos=use_videos
    )
    rng = np.random.default_rng(0)
    for episode in range(3):
        for image in smooth_pictures(4 + episode, picture["shape"][0], episode):
            frame = {
                "observation.images.front": image,
                "observation.images.wrist": image[::-1].copy(),
            }
            frame |= {
                name: rng.normal(size=7).astype(np.float32)
                for name in ("observation.state", "action")
            }
            dataset.add_frame(frame | {"task": f"task {episode % 2}"})
        dataset.save_episode()
    dataset.finalize()
    return root
