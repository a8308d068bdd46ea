"""What the phases of `vla demo` found out, as summary.json and as a page to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from vla.cli import demo_sections
from vla.cli.demo import DemoConfig, Finished
from vla.cli.environment import environment
from vla.evaluation import charts, html
from vla.evaluation.intervals import PairedComparison, compare_paired
from vla.evaluation.report import percent


def build(
    cfg: DemoConfig, work: Path, finished: Mapping[str, Finished]
) -> tuple[dict[str, Any], html.Page]:
    """Returns what goes into summary.json and the report.

    Args:
        cfg: the demo's settings.
        work: folder with one sub-folder per phase.
        finished: results of the phases collect, before, train, after and deploy.

    Keys of the summary: success_before and success_after (rate, low, high, episodes, successes), gain
    (after minus before over the same scenes), train_seconds, train_steps, deadline_misses, max_lateness_ms,
    limit_violations, holds, phases (name to seconds), demonstrations, seeds (first, last), environment.
    """
    gain = compare_paired(*_paired(_outcomes(work / "before"), _outcomes(work / "after")))
    deploy, train = finished["deploy"].summary, finished["train"].summary
    summary: dict[str, Any] = {
        "task": cfg.task,
        "success_before": _rate(finished["before"].summary),
        "success_after": _rate(finished["after"].summary),
        "gain": gain.to_dict(),
        "train_seconds": train["seconds"],
        "train_steps": train["step"],
        "deadline_misses": deploy["misses"],
        "max_lateness_ms": deploy["max_ms"],
        "limit_violations": deploy["limit_violations"],
        "holds": deploy["holds"],
        "phases": {name: phase.seconds for name, phase in finished.items()},
        "demonstrations": finished["collect"].summary["episodes"],
        "seeds": [cfg.seed, cfg.seed + cfg.episodes - 1],
        "environment": environment(),
    }
    return summary, _page(cfg, work, finished, summary, gain)


def verdict(
    task: str, before: Mapping[str, Any], after: Mapping[str, Any], gain: PairedComparison
) -> str:
    """Returns the result in one sentence, and says so when the difference may be chance."""
    words = task.replace("_", " ")
    counts = f"{after['successes']} of {after['episodes']} unseen scenes instead of {before['successes']}"
    points = f"{100 * gain.difference:+.0f} points (95 % interval {100 * gain.low:+.0f} to {100 * gain.high:+.0f})"
    if gain.low > 0:
        return f"Fine-tuning taught the policy “{words}”: it now succeeds in {counts}, {points}."
    return (
        f"No sure gain on “{words}”: success in {counts}, {points}. Collect more or train longer."
    )


def _page(
    cfg: DemoConfig,
    work: Path,
    finished: Mapping[str, Finished],
    summary: Mapping[str, Any],
    gain: PairedComparison,
) -> html.Page:
    before, after = summary["success_before"], summary["success_after"]
    rows = _read_jsonl(work / "train" / "metrics.jsonl")
    total = sum(summary["phases"].values())
    return html.Page(
        title=f"A new task: {cfg.task.replace('_', ' ')}",
        kicker=f"vla demo · {datetime.now():%Y-%m-%d %H:%M}",
        verdict=verdict(cfg.task, before, after, gain),
        figures=[
            html.Figure(value=percent(before["rate"]), label="success before", role="before"),
            html.Figure(value=percent(after["rate"]), label="success after", role="after"),
            html.Figure(value=charts.duration(summary["train_seconds"]), label="of fine-tuning"),
            html.Figure(
                value=demo_sections.of_ticks(finished["deploy"].summary),
                label="control deadlines missed",
            ),
        ],
        sections=[
            demo_sections.success(cfg, finished, before, after, gain),
            demo_sections.videos(work, cfg),
            demo_sections.learning(rows, finished["train"].summary, summary),
            demo_sections.real_time(finished["deploy"].summary, work / "deploy"),
            demo_sections.this_run(summary, finished, work),
            demo_sections.next_steps(cfg, work),
        ],
        footer=f"Made in {charts.duration(total)} on {summary['environment']['processor']}.",
    )


def _rate(figures: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "rate": "success_rate",
        "low": "low",
        "high": "high",
        "episodes": "episodes",
        "successes": "successes",
    }
    return {name: figures[key] for name, key in names.items()}


def _outcomes(directory: Path) -> dict[int, bool]:
    """Returns seed to success; episodes that crashed say nothing about the policy and are left out."""
    rows = _read_jsonl(directory / "episodes.jsonl")
    return {row["seed"]: row["is_success"] for row in rows if row["failure"] != "exception"}


def _paired(first: Mapping[int, bool], second: Mapping[int, bool]) -> tuple[list[bool], list[bool]]:
    """Returns both outcomes of every seed that both have, in the order of the seeds."""
    seeds = sorted(first.keys() & second.keys())
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
