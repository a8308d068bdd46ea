"""What the phases of `vla demo` found out, as summary.json and as a page to read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.cli.environment import environment
from vla.evaluation import charts, html
from vla.evaluation.intervals import PairedComparison, compare_paired
from vla.evaluation.report import percent
from vla.types import END_EFFECTOR_DELTA_7D

if TYPE_CHECKING:
    from vla.cli.demo import DemoConfig, Finished

SMOOTHED_ROWS = 9  # of the training log, for the line through its noise
DISPLAY_UNITS = {"m": (1000.0, "mm"), "rad": (57.29577951308232, "°")}


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
        "train_seconds": train["train_seconds"],
        "train_steps": train["steps"],
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
        title=f"Learning to {cfg.task.replace('_', ' ')}",
        kicker=f"vla demo · {datetime.now():%Y-%m-%d %H:%M}",
        verdict=verdict(cfg.task, before, after, gain),
        figures=[
            html.Figure(value=percent(before["rate"]), label="success before", role="before"),
            html.Figure(value=percent(after["rate"]), label="success after", role="after"),
            html.Figure(
                value=charts.duration(summary["train_seconds"]), label="of fine-tuning, no GPU"
            ),
            html.Figure(
                value=_of_ticks(finished["deploy"].summary), label="control deadlines missed"
            ),
        ],
        sections=[
            _success(cfg, finished, before, after, gain),
            _videos(work, cfg),
            _learning(rows, finished["train"].summary, summary),
            _real_time(finished["deploy"].summary),
            _this_run(summary, finished, work),
            _next_steps(cfg, work),
        ],
        footer=f"Made in {charts.duration(total)} on {summary['environment']['processor']}.",
    )


def _success(
    cfg: DemoConfig,
    finished: Mapping[str, Finished],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    gain: PairedComparison,
) -> html.Section:
    rates = [
        charts.Interval(
            label=role, value=rate["rate"], low=rate["low"], high=rate["high"], role=role
        )
        for role, rate in (("before", before), ("after", after))
    ]
    both = after["successes"] - gain.gained
    pairs = [
        ["solved only after", str(gain.gained)],
        ["solved before and after", str(both)],
        ["solved only before", str(gain.lost)],
        ["solved by neither", str(gain.seeds - both - gain.gained - gain.lost)],
    ]
    chance = "p < 0.001" if gain.p_value < 0.001 else f"p = {gain.p_value:.3f}"
    note = (
        f"Gain {100 * gain.difference:+.1f} points, paired bootstrap 95 % interval {100 * gain.low:+.1f} to "
        f"{100 * gain.high:+.1f}; McNemar's exact test {chance}."
    )
    lead = (
        f"{cfg.episodes} scenes with seeds from {cfg.seed}, the same before and after, none of them "
        "among the demonstrations. Success is judged after the arm has let go and everything has come to rest."
    )
    cards = [
        html.Card(
            title="Success rate",
            html=charts.interval_chart(rates),
            note="Whiskers: Wilson's 95 % interval.",
        ),
        html.Card(title="Scene by scene", html=html.table(["outcome", "scenes"], pairs), note=note),
        html.Card(html=_outcome_table(finished), is_wide=True),
    ]
    return html.Section(title="Success on unseen scenes", lead=lead, cards=cards)


def _outcome_table(finished: Mapping[str, Finished]) -> str:
    classes = list(finished["after"].summary["failures"])
    head = [
        "policy",
        "success",
        "rate",
        "95 % interval",
        "mean steps",
        *(name.replace("_", " ") for name in classes),
    ]
    rows = []
    for name in ("before", "after"):
        figures = finished[name].summary
        rows.append(
            [
                name,
                f"{figures['successes']} / {figures['episodes']}",
                percent(figures["success_rate"]),
                f"{percent(figures['low'])} to {percent(figures['high'])}",
                f"{figures['mean_steps'] or 0:.1f}",
                *(str(figures["failures"].get(kind, 0)) for kind in classes),
            ]
        )
    return html.table(head, rows)


def _videos(work: Path, cfg: DemoConfig) -> html.Section:
    cards = []
    for name in ("before", "after"):
        path = work / name / "episodes.mp4"
        if path.exists():
            cards.append(
                html.Card(
                    title=name.capitalize(), html=html.video(path, "Green: success. Red: failure.")
                )
            )
    lead = f"The first of the evaluated scenes, seeds from {cfg.seed}, in real time."
    return html.Section(title="Watch it", lead=lead, cards=cards)


def _learning(
    rows: Sequence[Mapping[str, Any]], train: Mapping[str, Any], summary: Mapping[str, Any]
) -> html.Section:
    legend = charts.legend([("train", "training"), ("validation", "held-out episodes")])
    loss = charts.line_chart(_loss_series(rows), x_label="optimiser steps", y_label="loss")
    validations = [row for row in rows if "validation/loss" in row]
    lead = (
        f"{train['steps']} steps in {charts.duration(train['train_seconds'])} on "
        f"{summary['demonstrations']} demonstrations, a few of which are held out of training."
    )
    cards = [html.Card(title="Loss", html=legend + loss)]
    if len(validations) > 1:
        first, last = validations[0], validations[-1]
        roles = [("before", f"step {first['step']}"), ("after", f"step {last['step']}")]
        bars = charts.bar_chart(_action_errors(first, last))
        note = "Mean absolute error of the predicted actions on held-out episodes, in physical units, per policy step."
        title = "Action error by dimension"
        cards.append(html.Card(title=title, html=charts.legend(roles) + bars, note=note))
        cards.append(
            html.Card(
                title="Accuracy of the action tokens",
                html=_accuracy_table(validations),
                is_wide=True,
            )
        )
    return html.Section(title="Learning", lead=lead, cards=cards)


def _loss_series(rows: Sequence[Mapping[str, Any]]) -> list[charts.Series]:
    train = [(row["step"], row["train/loss"]) for row in rows if row.get("train/loss") is not None]
    held_out = [
        (row["step"], row["validation/loss"])
        for row in rows
        if row.get("validation/loss") is not None
    ]
    steps, losses = [step for step, _ in train], [loss for _, loss in train]
    return [
        charts.Series(label="training", x=steps, y=losses, role="train", is_faint=True),
        charts.Series(label="training, smoothed", x=steps, y=_smoothed(losses), role="train"),
        charts.Series(
            label="held-out episodes",
            x=[step for step, _ in held_out],
            y=[loss for _, loss in held_out],
            role="validation",
            has_points=True,
        ),
    ]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Returns the mean over a window of SMOOTHED_ROWS around each value, shorter at the ends."""
    half = SMOOTHED_ROWS // 2
    windows = (values[max(0, index - half) : index + half + 1] for index in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _action_errors(first: Mapping[str, Any], last: Mapping[str, Any]) -> list[charts.BarGroup]:
    spec, groups = END_EFFECTOR_DELTA_7D, []
    for name, unit in zip(spec.names, spec.units, strict=True):
        key = f"validation/action_l1/{name}"
        if key in first and key in last:
            factor, shown = DISPLAY_UNITS.get(unit, (1.0, ""))
            values = {"before": factor * first[key], "after": factor * last[key]}
            groups.append(charts.BarGroup(label=name, values=values, format="{:.2f} " + shown))
    return groups


def _accuracy_table(validations: Sequence[Mapping[str, Any]]) -> str:
    names = {
        "validation/token_accuracy": "exact bin",
        "validation/token_accuracy_within_2": "at most two bins off",
    }
    names = {key: label for key, label in names.items() if key in validations[0]}
    chosen = validations if len(validations) <= 6 else [validations[0], *validations[-5:]]
    rows = [
        [str(row["step"]), f"{row['validation/loss']:.3f}", *(percent(row[key]) for key in names)]
        for row in chosen
    ]
    return html.table(["step", "loss", *names.values()], rows)


def _real_time(deploy: Mapping[str, Any]) -> html.Section:
    lead = (
        "A control process without torch commands the arm at fixed instants while the policy thinks in "
        "another process. Lateness is how long after its instant a tick began; nothing is averaged away."
    )
    figures = {
        "deadlines missed": _of_ticks(deploy),
        "lateness, median": f"{deploy['p50_ms']:.3f} ms",
        "lateness, 99 %": f"{deploy['p99_ms']:.3f} ms",
        "lateness, 99.9 %": f"{deploy['p999_ms']:.3f} ms",
        "lateness, largest": f"{deploy['max_ms']:.3f} ms",
        "commands outside a limit": str(deploy["limit_violations"]),
        "holds (policy late)": str(deploy["holds"]),
    }
    for key, label in (
        ("action_age_p50_ms", "age of an action, median"),
        ("action_age_p99_ms", "age of an action, 99 %"),
    ):
        if deploy.get(key) is not None:
            figures[label] = f"{deploy[key]:.0f} ms"
    cards = [html.Card(title="Deadlines", html=html.facts(figures))]
    if "lateness_histogram" in deploy:
        bins = deploy["lateness_histogram"]
        chart = charts.histogram(
            bins["edges_ms"],
            bins["counts"],
            x_label="lateness (ms)",
            limit=deploy.get("period_ms"),
            limit_label="next tick",
        )
        cards.insert(0, html.Card(title="Lateness of every control tick", html=chart))
    return html.Section(title="Real time", lead=lead, cards=cards)


def _this_run(
    summary: Mapping[str, Any], finished: Mapping[str, Finished], work: Path
) -> html.Section:
    phases = charts.timeline(list(summary["phases"].items()))
    lines = [(name, _readable(phase.command, work)) for name, phase in finished.items()]
    cards = [
        html.Card(title="Time", html=phases),
        html.Card(title="Environment", html=html.facts(summary["environment"])),
        html.Card(title="The commands behind it", html=html.commands(lines), is_wide=True),
    ]
    return html.Section(title="This run", cards=cards)


def _next_steps(cfg: DemoConfig, work: Path) -> html.Section:
    policy = _readable(str(work / "train"), work)
    lines = [
        (
            "Does it listen, or only look? The same scenes with other words",
            f"vla eval policy={policy} env=pick_cube swap_instruction=true",
        ),
        ("What it achieves blind", f"vla eval policy={policy} env={cfg.task} black_image=true"),
        (
            "Wordings it has never read",
            f"vla eval policy={policy} env={cfg.task} instruction_split=held_out",
        ),
        (
            "Stronger changes of light, camera and table",
            f"vla eval policy={policy} env={cfg.task} env.randomization=hard",
        ),
        (
            "Success against the policy's delay",
            f"vla eval policy={policy} env={cfg.task} latency_ms=200",
        ),
        (
            "More data and more time",
            f"vla demo task={cfg.task} demonstrations=500 budget_seconds=3600",
        ),
        ("Another task", "vla demo task=stack"),
    ]
    return html.Section(
        title="What to try next", cards=[html.Card(html=html.commands(lines), is_wide=True)]
    )


def _readable(text: str, work: Path) -> str:
    """Returns a command or path with the run's folder written as a person would: relative, through `latest`."""
    latest = work.parent.parent / "latest" / work.name
    shown = os.path.relpath(latest) if latest.is_relative_to(Path.cwd()) else str(latest)
    for folder in (work.parent.parent / "unfinished", work):
        text = text.replace(str(folder), shown)
    return text


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


def _of_ticks(deploy: Mapping[str, Any]) -> str:
    return (
        f"{deploy['misses']} of {deploy['ticks']}" if "ticks" in deploy else str(deploy["misses"])
    )


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
