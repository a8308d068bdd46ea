"""Several crops of each picture, and patches hidden from the student: what self-distillation is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vla.data.jitter import ColorJitterConfig, jitter_colors
from vla.data.mixture import Mixture
from vla.data.prefetch import made_ahead
from vla.errors import ConfigError

_LOG_RATIO = math.log(4 / 3)  # of a crop's sides, at most (Szegedy et al. 2015)


@dataclass(kw_only=True)
class CropConfig:
    """How pictures are cropped and hidden. Sizes are those of DINOv2, shrunk to pictures of 64 px."""

    num_global: int = 2  # large crops a picture
    num_local: int = 4  # small crops a picture; 8 in DINOv2
    local_size: int = 32  # pixels of a small crop, a multiple of the patch
    global_scale: list[float] = field(default_factory=lambda: [0.4, 1.0])  # share of the area
    local_scale: list[float] = field(default_factory=lambda: [0.1, 0.4])
    mask_probability: float = 0.5  # share of large crops with hidden patches
    mask_ratio: list[float] = field(default_factory=lambda: [0.1, 0.5])  # share hidden of those
    jitter: float = 0.2  # of brightness, contrast and saturation; hue stays, colours are to be told

    def __post_init__(self) -> None:
        for name in ("global_scale", "local_scale", "mask_ratio"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
                raise ConfigError(
                    f"{name} = {bounds}; give [least, most], shares with 0 < least <= most <= 1"
                )


@dataclass(kw_only=True)
class CropBatch:
    """Crops of B pictures, crop after crop.

    Attributes:
        global_crops: (2 * B, 3, S, S) uint8.
        local_crops: (L * B, 3, s, s) uint8.
        is_masked: (2 * B, patches) bool, hidden from the student.
        step: number of the batch, for schedules.
    """

    global_crops: Tensor
    local_crops: Tensor
    is_masked: Tensor
    step: int

    def to(self, device: torch.device) -> CropBatch:
        """Returns the batch on `device`."""
        return CropBatch(
            global_crops=self.global_crops.to(device),
            local_crops=self.local_crops.to(device),
            is_masked=self.is_masked.to(device),
            step=self.step,
        )


class CropBatches:
    """Batches by step number, an endless shuffle of the pictures; `at(step)` is a pure function of (seed, step)."""

    def __init__(
        self,
        pictures: NDArray[np.uint8],
        *,
        patch_size: int,
        batch_size: int,
        cfg: CropConfig,
        seed: int = 0,
    ) -> None:
        self._pictures, self._cfg, self._seed = pictures, cfg, seed
        self._batch_size, self._patch_size = batch_size, patch_size
        self._order = Mixture([np.arange(len(pictures))], [1.0], seed)

    def at(self, step: int) -> CropBatch:
        """Returns the batch of `step`."""
        cfg, rng = self._cfg, np.random.default_rng((self._seed, 5, step))
        chosen = self._order.take(step * self._batch_size, self._batch_size)
        pictures = torch.from_numpy(self._pictures[chosen])
        size = pictures.shape[-1]
        large = [crop(pictures, size, cfg.global_scale, rng) for _ in range(cfg.num_global)]
        small = [crop(pictures, cfg.local_size, cfg.local_scale, rng) for _ in range(cfg.num_local)]
        masks = [
            self._mask(size // self._patch_size, rng) for _ in range(cfg.num_global * len(chosen))
        ]
        empty = pictures.new_zeros(0, 3, cfg.local_size, cfg.local_size)
        return CropBatch(
            global_crops=self._jittered(torch.cat(large), rng),
            local_crops=self._jittered(torch.cat(small), rng) if small else empty,
            is_masked=torch.from_numpy(np.stack(masks)),
            step=step,
        )

    def prefetch(self, start_step: int, end_step: int) -> Iterator[CropBatch]:
        """Returns the batches of start_step .. end_step - 1 in order, made ahead by one thread."""
        return made_ahead(self.at, start_step, end_step)

    def _mask(self, grid: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        if rng.random() >= self._cfg.mask_probability:
            return np.zeros(grid * grid, np.bool_)
        share = rng.uniform(self._cfg.mask_ratio[0], self._cfg.mask_ratio[1])
        return block_mask(grid, max(1, round(share * grid * grid)), rng)

    def _jittered(self, pictures: Tensor, rng: np.random.Generator) -> Tensor:
        amount = self._cfg.jitter
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        if not amount:
            return pictures
        cfg = ColorJitterConfig(brightness=amount, contrast=amount, saturation=amount)
        return jitter_colors(pictures, cfg, generator)


def crop(pictures: Tensor, size: int, scale: Sequence[float], rng: np.random.Generator) -> Tensor:
    """Returns a random piece of every picture (B, 3, S, S) uint8, bilinear at `size`.

    Args:
        pictures: uint8.
        size: side of the result, pixels.
        scale: least and largest share of the picture's area.
        rng: decides place, area and ratio of each.
    """
    count = len(pictures)
    area = rng.uniform(scale[0], scale[1], size=count)
    ratio = np.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO, size=count))
    extent = np.minimum(1.0, np.sqrt(np.stack([area * ratio, area / ratio], axis=1)))  # x, y
    offset = rng.uniform(-1.0, 1.0, size=(count, 2)) * (1.0 - extent)  # centres, in -1 .. 1
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = extent[:, 0], extent[:, 1], offset
    grid = F.affine_grid(torch.from_numpy(theta), [count, 3, size, size], align_corners=False)
    pieces = F.grid_sample(
        pictures.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return pieces.round_().to(torch.uint8)


def block_mask(grid: int, num_hidden: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Returns (grid * grid,) with exactly `num_hidden` True, in rectangles: neighbours give each other away (BEiT)."""
    hidden = np.zeros((grid, grid), np.bool_)
    while (missing := num_hidden - int(hidden.sum())) > 0:
        rows, columns = rng.integers(1, grid // 2 + 2, size=2)
        top, left = (
            rng.integers(0, grid - min(rows, grid) + 1),
            rng.integers(0, grid - min(columns, grid) + 1),
        )
        before = hidden.copy()
        hidden[top : top + rows, left : left + columns] = True
        if int(hidden.sum()) > num_hidden:  # the last rectangle only as far as needed
            new = np.flatnonzero((hidden & ~before).ravel())
            hidden = before
            hidden.ravel()[new[:missing]] = True
    return hidden.ravel()
