"""`vla collect` from the command line's config to a dataset of the real simulation."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vla.cli.collect import CollectConfig, run
from vla.cli.config import compose
from vla.data.lerobot import Frames, open_frames
from vla.errors import ConfigError, DatasetError

CAMERAS = ["front", "wrist"]


def _config(root: Path, *words: str) -> CollectConfig:
    return compose(
        "collect", CollectConfig, [f"root={root}", "num_workers=0", "env.image_size=32", *words]
    )


def _read(root: Path) -> Frames:
    return open_frames(root, cameras=CAMERAS, cache=False)


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("collected")
    return folder / "cubes", run(_config(folder / "cubes", "episodes=4"), folder)


def test_the_summary_says_what_the_dataset_holds(collected):
    root, summary = collected
    frames = _read(root)
    assert (summary["episodes"], summary["frames"]) == (4, len(frames))
    assert summary["new_episodes"] == 4
    with Image.open(summary["contact_sheet"]) as sheet:
        assert sheet.width > 4 * 256


def test_a_scene_is_asked_for_in_two_ways(collected):
    root, _ = collected
    frames = _read(root)
    starts = [0, *frames.episode_ends[:-1]]
    assert frames.scene.tolist() == [0, 0, 1, 1]
    for first, second in (starts[:2], starts[2:]):
        np.testing.assert_array_equal(frames.images["front"][first], frames.images["front"][second])
        assert frames.tasks[frames.task_index[first]] != frames.tasks[frames.task_index[second]]


def test_labels_stay_within_the_limits_and_grounding_points_at_the_object(collected):
    root, _ = collected
    frames = _read(root)
    assert (np.abs(frames.actions[:, :3]) <= 0.04 + 1e-6).all()
    assert frames.environment_state is not None
    distance = np.linalg.norm(frames.environment_state[:, :3], axis=1)
    ends = frames.episode_ends - 1
    assert (distance[ends] < 0.05).all()  # lifted: the object is between the fingers
    seen = frames.environment_state[:, 3] >= 0
    assert seen.mean() > 0.5
    assert (frames.environment_state[seen, 3:5] <= 1).all()


def test_the_same_command_again_adds_nothing_and_a_larger_number_extends(collected, caplog):
    root, _ = collected
    before = _read(root)
    with caplog.at_level(logging.INFO, "vla"):
        again = run(_config(root, "episodes=4"), root.parent)
    assert again["new_episodes"] == 0
    assert "already holds 4 finished episodes" in caplog.text
    assert run(_config(root, "episodes=6"), root.parent)["new_episodes"] == 2
    after = _read(root)
    assert after.num_episodes == 6
    np.testing.assert_array_equal(after.actions[: len(before)], before.actions)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("env.image_size=48", r"env.image_size=32, not 48"),
        ("seed=5", r"seed=0, not 5"),
        ("is_perturbed=false", r"is_perturbed=True, not False"),
        ("env=reach", r"env.task='pick_cube', not 'reach'"),
    ],
)
def test_another_setting_is_refused_for_the_same_folder(collected, word, message):
    root, _ = collected
    with pytest.raises(DatasetError, match=message):
        run(_config(root, "episodes=4", word), root.parent)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1000000"], r"seeds 1000000..\d+ are not all within 0..999999"),
        (["seed=999990", "episodes=100"], r"belong to evaluation"),
        (["episodes=0"], r"episodes must be at least 1; got 0"),
        (["instructions_per_scene=3"], r"instructions_per_scene must be 1 or 2"),
        (["env.cameras=[]"], r"env.cameras is empty"),
        (["env=juggle"], r"juggle"),
        (["episode=5"], r"unknown setting 'episode'.*episodes"),
    ],
)
def test_bad_settings_are_refused_in_one_line(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        _config(tmp_path, *words)
    assert "\n" not in str(caught.value)


def test_without_perturbation_the_label_is_what_was_executed(tmp_path):
    import pyarrow.parquet as pq

    run(_config(tmp_path / "calm", "episodes=1", "is_perturbed=false"), tmp_path)
    table = pq.read_table(next((tmp_path / "calm").rglob("data/**/*.parquet")))
    assert table.column("action").to_pylist() == table.column("action.executed").to_pylist()
