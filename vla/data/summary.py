"""The statistics in `meta/stats.json`: min, max, mean, std, count and five quantiles per feature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.types import ImageArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Histogram = NDArray[np.int64]


def vector_summary(values: NDArray[Any]) -> dict[str, Any]:
    """Returns the statistics of `values` (frames,) or (frames, width); quantiles are exact."""
    table = values.reshape(len(values), -1).astype(np.float64)
    summary: dict[str, Any] = {
        "min": table.min(0).tolist(), "max": table.max(0).tolist(), "mean": table.mean(0).tolist(),
        "std": table.std(0).tolist(), "count": [len(table)],
    }  # fmt: skip
    quantiles = np.quantile(table, list(QUANTILES.values()), axis=0)
    return summary | {name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)}


def image_histogram(images: ImageArray) -> Histogram:
    """Returns how often each of the 256 levels occurs per channel, (3, 256), over all pixels of (frames, H, W, 3)."""
    pixels = images.reshape(-1, 3)
    return np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])


def image_summary(histogram: Histogram, num_frames: int) -> dict[str, Any]:
    """Returns the statistics of the pictures behind `histogram`, each (3, 1, 1) and scaled to [0, 1]."""
    levels = np.arange(256) / 255.0
    totals = histogram.sum(1, keepdims=True)
    mean = (histogram * levels).sum(1) / totals[:, 0]
    variance = (histogram * (levels - mean[:, None]) ** 2).sum(1) / totals[:, 0]
    present = [np.flatnonzero(row) for row in histogram]
    columns = {
        "min": [levels[row[0]] for row in present],
        "max": [levels[row[-1]] for row in present],
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
    }
    cumulative = histogram.cumsum(1)
    for name, q in QUANTILES.items():
        columns[name] = [levels[np.searchsorted(row, q * row[-1])] for row in cumulative]
    shaped: dict[str, Any] = {
        name: [[[float(value)]] for value in row] for name, row in columns.items()
    }
    return shaped | {"count": [num_frames]}
