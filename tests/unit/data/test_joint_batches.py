from collections import Counter

import numpy as np
import pytest
import torch

from vla.data.joint_batches import JointBatches, split_rows
from vla.data.mixture import Mixture
from vla.errors import ConfigError


class _Numbers:
    """Batches of the numbers 0 .. count - 1 in an endless exact shuffle."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._order = Mixture([np.arange(count)], [1.0], seed)
        self._size = batch_size
        self.num_samples, self.len_epoch = count, -(-count // batch_size)

    def at(self, step: int) -> torch.Tensor:
        return torch.from_numpy(self._order.take(step * self._size, self._size))


def _joint(batch_size: int, scene_fraction: float, seed: int = 0) -> JointBatches:
    robot, scenes = split_rows(batch_size, scene_fraction)
    return JointBatches(_Numbers(24, robot, seed), _Numbers(7, scenes, seed))


@pytest.mark.parametrize(("fraction", "num_scenes"), [(0.25, 2), (0.5, 4), (0.1, 1), (0.8, 6)])
def test_every_step_has_the_share_of_scenes_that_is_asked_for_to_the_nearest_row(
    fraction, num_scenes
):
    batches = _joint(8, fraction)
    for batch in batches.prefetch(0, batches.len_epoch):
        assert len(batch.scenes) == num_scenes
        assert len(batch.robot) == 8 - num_scenes


def test_over_an_epoch_every_robot_frame_comes_once_and_scenes_evenly():
    batches = _joint(8, 0.25)
    seen = list(batches.prefetch(0, batches.len_epoch))
    assert sorted(torch.cat([batch.robot for batch in seen]).tolist()) == list(range(24))
    scenes = Counter(torch.cat([batch.scenes for batch in seen]).tolist())
    assert sum(scenes.values()) == 2 * batches.len_epoch  # a quarter of all rows
    assert set(scenes.values()) <= {1, 2}


def test_a_step_is_a_function_of_seed_and_number_alone():
    whole = list(_joint(8, 0.25).prefetch(0, 9))
    resumed = list(_joint(8, 0.25).prefetch(4, 9))
    other = list(_joint(8, 0.25, seed=1).prefetch(4, 9))
    for before, after in zip(whole[4:], resumed, strict=True):
        assert torch.equal(before.robot, after.robot)
        assert torch.equal(before.scenes, after.scenes)
    assert not torch.equal(whole[4].scenes, other[0].scenes)


def test_without_scenes_all_rows_are_robot_frames():
    assert split_rows(128, 0.0) == (128, 0)


@pytest.mark.parametrize(
    ("fraction", "message"), [(1.0, r"\[0, 1\)"), (0.01, "is 0"), (0.99, "is 8")]
)
def test_a_share_that_leaves_one_side_without_rows_is_refused(fraction, message):
    with pytest.raises(ConfigError, match=message):
        split_rows(8, fraction)
