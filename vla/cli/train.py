"""`vla train`: datasets in, a checkpoint that can act out."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla.cli.convert import to_plain
from vla.training.config import RunConfig, WandbConfig
from vla.training.track import JsonlTracker, Metrics, Tracker, TrackerGroup

logger = logging.getLogger(__name__)


def run(cfg: RunConfig, directory: Path) -> dict[str, Any]:
    """Trains, and returns steps, samples, times, held-out metrics and the path of the checkpoint."""
    from vla.cli.build import find_checkpoint
    from vla.training.assemble import train_policy

    if cfg.init_from:
        cfg = replace(cfg, init_from=str(find_checkpoint(cfg.init_from)))
    tracker = open_tracker(cfg.wandb, directory, cfg)
    try:
        return train_policy(cfg, directory, tracker, _tabletop_sentences())
    finally:
        tracker.close()


def open_tracker(wandb: WandbConfig, directory: Path, cfg: Any) -> Tracker:
    """Returns what writes the run's metrics.jsonl, and sends them to Weights and Biases where that is asked for.

    Args:
        wandb: whether and where.
        directory: of the run.
        cfg: the verb's whole config; with `resume` the rows of the last run are kept.
    """
    trackers: list[Tracker] = [JsonlTracker(directory / "metrics.jsonl", keep_rows=cfg.resume)]
    if wandb.enabled:
        trackers.append(WandbTracker(wandb.project, to_plain(cfg), directory))
    return TrackerGroup(trackers)


class WandbTracker:
    """Logs to Weights and Biases; offline, into the run's folder, unless an API key is set or a login is stored."""

    def __init__(self, project: str, settings: dict[str, Any], directory: Path) -> None:
        import wandb

        is_logged_in = bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
        if not is_logged_in:
            os.environ.setdefault("WANDB_MODE", "offline")
        self._run = wandb.init(project=project, dir=directory, config=settings, resume="allow")

    def log(self, metrics: Metrics, step: int) -> None:
        self._run.log(metrics, step=step)

    def close(self) -> None:
        self._run.finish()


def _tabletop_sentences() -> list[str]:
    """Returns what the tabletop says in training, so that a tokenizer knows the words of tasks still to come."""
    from envs.instructions import PHRASINGS
    from envs.objects import COLORS, SHAPES

    names = [f"{color} {shape.value}" for color in COLORS for shape in SHAPES]
    sentences = (sentence for phrasings in PHRASINGS.values() for sentence in phrasings.train)
    return [sentence.format(object=n, reference=n) for sentence in sentences for n in names]
