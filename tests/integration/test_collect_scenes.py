"""`vla collect labels=true` from the command line to rows that can be read."""

import numpy as np
import pytest

from vla.cli.collect import CollectConfig
from vla.cli.main import main
from vla.data.scenes import open_scenes
from vla.errors import ConfigError


def collect(tmp_path, *words: str) -> int:
    common = ["labels=true", f"root={tmp_path / 'scenes'}", f"output_root={tmp_path / 'outputs'}"]
    return main(["collect", *common, *words])


def test_the_same_command_goes_on_and_draws_the_same_scenes(tmp_path):
    assert collect(tmp_path, "episodes=3", "num_workers=1", "scene_labels.sizes=[64x32,32x64]") == 0
    first = [row.frames.copy() for row in open_scenes(tmp_path / "scenes", cache=False)]
    assert collect(tmp_path, "episodes=5", "num_workers=0", "scene_labels.sizes=[64x32,32x64]") == 0
    scenes = open_scenes(tmp_path / "scenes")
    assert len(scenes) == 5
    assert all(np.array_equal(a, scenes.frames(i)) for i, a in enumerate(first))
    assert set(scenes.sizes) <= {(32, 64), (64, 32)}
    assert (tmp_path / "scenes.png").is_file()


def test_training_and_held_out_seeds_never_share_a_dataset():
    CollectConfig(labels=True, seed=1_000_000, episodes=10)
    with pytest.raises(ConfigError, match="neither all training scenes"):
        CollectConfig(labels=True, seed=999_995, episodes=10)
