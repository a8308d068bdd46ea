"""Outcomes as figures: summary.json's keys, and the rows a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vla.evaluation.episode import Episode, Failure
from vla.evaluation.intervals import Rate, wilson


def summarize(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Returns success with its interval, overall and per task, and failures by class.

    Keys: success_rate, low, high, episodes (the scored ones), seeds, per_task (task to success_rate, low, high,
    episodes, successes, failures), failures (class to count), handled (object to count, where the task says),
    exceptions (one entry per episode that crashed: not scored, not in `episodes`), mean_steps, clipped_share,
    confidence, policy_ms.
    """
    scored = [episode for episode in episodes if episode.is_scored]
    rate = rate_of(scored)
    tasks = sorted({episode.task for episode in episodes})
    handled = Counter(episode.handled for episode in scored if episode.handled)
    steps = sum(episode.steps for episode in scored)
    return {
        "success_rate": rate.success_rate,
        "low": rate.low,
        "high": rate.high,
        "successes": rate.successes,
        "episodes": rate.episodes,
        "per_task": {task: _task(episodes, task) for task in tasks},
        "failures": count_failures(episodes),
        "handled": dict(handled.most_common()),
        "exceptions": [_exception(episode) for episode in episodes if not episode.is_scored],
        "mean_steps": _mean([episode.steps for episode in scored]),
        "clipped_share": sum(episode.clipped_steps for episode in scored) / max(steps, 1),
        "confidence": _mean([e.confidence for e in scored if e.confidence is not None]),
        "policy_ms": _mean([episode.policy_ms for episode in scored]),
        "seeds": [episode.seed for episode in episodes],
    }


def rate_of(episodes: Sequence[Episode]) -> Rate:
    """Returns the success rate of the scored ones among `episodes`, with Wilson's interval."""
    outcomes = [episode.is_success for episode in episodes if episode.is_scored]
    return wilson(sum(outcomes), len(outcomes))


def count_failures(episodes: Sequence[Episode]) -> dict[str, int]:
    """Returns how often each class of failure came, zeros included."""
    counts = Counter(episode.failure for episode in episodes)
    return {failure.value: counts[failure.value] for failure in Failure}


def table(summary: dict[str, Any]) -> str:
    """Returns one row per task, and one for all of them when there are several."""
    rows = [_row(task, figures) for task, figures in summary["per_task"].items()]
    if len(rows) != 1:
        rows.append(_row("all", summary))
    header = ["task", "success", "95 % interval", "n", *(f.value for f in Failure)]
    rows.insert(0, [name.replace("_", " ") for name in header])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def percent(rate: float) -> str:
    """Returns a share as `63.5 %`, or `-` when there is none."""
    return "-" if np.isnan(rate) else f"{100 * rate:.1f} %"


def _task(episodes: Sequence[Episode], task: str) -> dict[str, Any]:
    own = [episode for episode in episodes if episode.task == task]
    return {**rate_of(own).to_dict(), "failures": count_failures(own)}


def _row(name: str, figures: dict[str, Any]) -> list[str]:
    interval = f"{100 * figures['low']:.1f} to {100 * figures['high']:.1f} %"
    failures = [str(count) for count in figures["failures"].values()]
    return [name, percent(figures["success_rate"]), interval, str(figures["episodes"]), *failures]


def _exception(episode: Episode) -> dict[str, Any]:
    return {"seed": episode.seed, "error": episode.error, "file": f"exceptions/{episode.seed}.txt"}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
