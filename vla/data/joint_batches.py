"""Robot frames and labelled scenes side by side: every optimiser step sees some of both.

The ratio is one of rows, not of steps. A batch of both gives one gradient, so the optimiser's moving averages and the
clipping see the sum that is to be descended, not words at one step and actions at the next; and both losses can be read
at every step. (RT-2 mixes within batches too: Brohan et al. 2023, section 3.2.) Robot frames and scenes differ in
length, in pictures and in what is read, so each is a batch of its own, and nothing is padded to the other's shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import torch

from vla.data.prefetch import made_ahead
from vla.errors import ConfigError


class AnyBatch(Protocol):
    """What a part of a step sees."""

    def to(self, device: torch.device) -> Self: ...


class BatchesByStep[B: AnyBatch](Protocol):
    """Batches that are pure functions of (seed, step), such as `Batches` and `MultimodalBatches`."""

    @property
    def num_samples(self) -> int: ...

    @property
    def len_epoch(self) -> int: ...

    def at(self, step: int) -> B: ...


@dataclass(kw_only=True)
class JointBatch[R: AnyBatch, S: AnyBatch]:
    """What one optimiser step sees."""

    robot: R
    scenes: S

    def to(self, device: torch.device) -> JointBatch[R, S]:
        """Returns the batch on `device`."""
        return JointBatch(robot=self.robot.to(device), scenes=self.scenes.to(device))


class JointBatches[R: AnyBatch, S: AnyBatch]:
    """The same step of both; an epoch is one of the robot frames, scenes go round at their own pace."""

    def __init__(self, robot: BatchesByStep[R], scenes: BatchesByStep[S]) -> None:
        self._robot, self._scenes = robot, scenes

    @property
    def num_samples(self) -> int:
        """Robot frames in one epoch."""
        return self._robot.num_samples

    @property
    def len_epoch(self) -> int:
        """Steps in one epoch of the robot frames."""
        return self._robot.len_epoch

    def at(self, step: int) -> JointBatch[R, S]:
        """Returns the batch of `step`, counted from 0 over all epochs."""
        return JointBatch(robot=self._robot.at(step), scenes=self._scenes.at(step))

    def prefetch(
        self, start_step: int, end_step: int, depth: int = 3
    ) -> Iterator[JointBatch[R, S]]:
        """Returns the batches of start_step .. end_step - 1 in order, `depth` ahead, made by one thread."""
        return made_ahead(self.at, start_step, end_step, depth)


def split_rows(batch_size: int, scene_fraction: float) -> tuple[int, int]:
    """Returns how many rows of every batch are robot frames and how many are scenes, the same at every step.

    The ratio is thereby exact over any number of steps, to the nearest row of a batch.

    Raises:
        ConfigError: the fraction lies outside [0, 1), or rounds to none or all of the rows.
    """
    if not 0 <= scene_fraction < 1:
        raise ConfigError(f"data.scene_fraction must lie in [0, 1); got {scene_fraction}")
    num_scenes = round(scene_fraction * batch_size)
    if scene_fraction and not 0 < num_scenes < batch_size:
        raise ConfigError(
            f"data.scene_fraction = {scene_fraction} of {batch_size} rows is {num_scenes}; both robot frames and "
            "scenes need at least one row; raise training.batch_size or change the fraction"
        )
    return batch_size - num_scenes, num_scenes
