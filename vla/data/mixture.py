"""The order in which training sees frames: exact shuffles, weighted between datasets, addressable by position.

Weights mean what they mean in OpenVLA's mixtures (rlds/oxe, balance_weights=True): 1.0 is one pass over a dataset per
epoch, 0.25 a quarter of its frames, 2.0 every frame twice. Unlike a shuffle buffer the order needs no memory beyond one
permutation, every frame comes exactly once per pass, and any position can be looked up without replaying what came
before: resuming costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vla.errors import ConfigError

IntArray = NDArray[np.int64]


class Mixture:
    """An endless, shuffled sequence of frame numbers drawn from several datasets.

    Args:
        pools: for each dataset, the frame numbers to draw from.
        weights: passes per epoch over each pool.
        seed: decides the order.

    Raises:
        ConfigError: a weight is not positive, or there is nothing to draw from.
    """

    def __init__(self, pools: Sequence[IntArray], weights: Sequence[float], seed: int) -> None:
        if len(pools) != len(weights) or min(weights, default=0) <= 0:
            raise ConfigError(
                f"a mixture needs one positive weight per dataset ({len(pools)}); got {list(weights)}"
            )
        self._pools = [np.asarray(pool, np.int64) for pool in pools]
        self._shares = [
            round(weight * len(pool)) for pool, weight in zip(self._pools, weights, strict=True)
        ]
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._pass = lru_cache(maxsize=2 * len(self._pools))(self._make_pass)
        if not len(self):
            raise ConfigError("the mixture is empty; give more frames or larger weights")

    def __len__(self) -> int:
        """Frames in an epoch."""
        return sum(self._shares)

    def take(self, start: int, count: int) -> IntArray:
        """Returns the `count` frame numbers from position `start` of the endless sequence."""
        positions = np.arange(start, start + count)
        epochs, offsets = np.divmod(positions, len(self))
        return np.concatenate(
            [self._epoch(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)]
        )

    def _make_epoch(self, epoch: int) -> IntArray:
        drawn = np.concatenate([self._draw(dataset, epoch) for dataset in range(len(self._pools))])
        return drawn[np.random.default_rng((self._seed, 1, epoch)).permutation(len(drawn))]

    def _draw(self, dataset: int, epoch: int) -> IntArray:
        """Returns this epoch's stretch of the dataset's own endless sequence of full passes."""
        share, pool = self._shares[dataset], self._pools[dataset]
        if not share:
            return pool[:0]
        passes, offsets = np.divmod(np.arange(epoch * share, (epoch + 1) * share), len(pool))
        return np.concatenate(
            [self._pass(dataset, int(p))[offsets[passes == p]] for p in np.unique(passes)]
        )

    def _make_pass(self, dataset: int, number: int) -> IntArray:
        pool = self._pools[dataset]
        return pool[np.random.default_rng((self._seed, 2, dataset, number)).permutation(len(pool))]


def split_episodes(scenes: IntArray, val_fraction: float, seed: int) -> NDArray[np.bool_]:
    """Returns True for the episodes held out for validation.

    A scene goes to one side with all its episodes, decided by a hash of its number alone, so the split stays the same
    when a dataset grows and no scene is trained on under one instruction and validated under another. With a positive
    fraction at least one scene is held out, and one is kept for training.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction must lie in [0, 1); got {val_fraction}")
    numbers = _hashed_unit(scenes, seed)
    held_out = numbers < val_fraction
    if val_fraction > 0 and not held_out.any():
        held_out = numbers == numbers.min()
    if held_out.all():
        held_out = numbers != numbers.max()
    return held_out


def _hashed_unit(values: IntArray, seed: int) -> NDArray[np.float64]:
    """Returns a number in [0, 1) for each value: SplitMix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)
