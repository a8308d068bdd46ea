"""The sections of the demo's report, one function each: plain numbers in, cards of a page out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla.cli.demo import CHECKPOINT, DemoConfig, Finished
from vla.evaluation import charts, html
from vla.evaluation.intervals import PairedComparison
from vla.evaluation.report import percent
from vla.types import END_EFFECTOR_DELTA_7D

SMOOTHED_ROWS = 9  # of the training log, for the line through its noise
DISPLAY_UNITS = {"m": (1000.0, "mm"), "rad": (57.29577951308232, "°")}


def success(
    cfg: DemoConfig,
    finished: Mapping[str, Finished],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    gain: PairedComparison,
) -> html.Section:
    """Returns both rates with their intervals, what changed scene by scene, and failures by class."""
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
        f"Gain {100 * gain.difference:+.1f} points, 95 % interval for paired scenes {100 * gain.low:+.1f} to "
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


def videos(work: Path, cfg: DemoConfig) -> html.Section:
    """Returns the films of the first evaluated scenes, before and after."""
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


def learning(
    rows: Sequence[Mapping[str, Any]], train: Mapping[str, Any], summary: Mapping[str, Any]
) -> html.Section:
    """Returns loss curves and action errors from the rows of metrics.jsonl."""
    legend = charts.legend([("train", "training"), ("validation", "held-out episodes")])
    loss = charts.line_chart(_loss_series(rows), x_label="optimiser steps", y_label="loss")
    validations = [row for row in rows if "validation/loss" in row]
    lead = (
        f"{train['step']} steps in {charts.duration(train['seconds'])} on "
        f"{summary['demonstrations']} demonstrations, a few of which are held out of training."
    )
    note = (
        "Targets are spread over neighbouring bins, so that a perfect policy would not reach zero."
    )
    cards = [html.Card(title="Loss", html=legend + loss, note=note)]
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


def real_time(deploy: Mapping[str, Any], directory: Path) -> html.Section:
    """Returns the deadline report of the drive whose output is in `directory`."""
    lead = (
        f"A control process without torch commands the arm at {deploy['rate_hz']:g} Hz while the policy thinks in "
        "another process. Lateness is how long after its instant a tick began; nothing is averaged away."
    )
    bins, period_ms = deploy["lateness_histogram"], 1000.0 / deploy["rate_hz"]
    chart = charts.histogram(
        bins["edges_ms"],
        bins["counts"],
        x_label="lateness (ms)",
        y_label="ticks (log scale)",
        limit=period_ms,
    )
    note = f"Red: a whole period of {period_ms:g} ms late or more, a missed deadline."
    cards = [
        html.Card(title="Lateness of every control tick", html=chart, note=note),
        html.Card(title="Deadlines", html=html.facts(_deadlines(deploy))),
    ]
    film = directory / "video.mp4"
    if film.exists():
        caption = (
            f"{deploy['episodes']} episodes finished in this time, {deploy['successes']} solved."
        )
        cards.append(html.Card(title="The drive", html=html.video(film, caption), is_wide=True))
    return html.Section(title="Real time", lead=lead, cards=cards)


def _deadlines(deploy: Mapping[str, Any]) -> dict[str, str]:
    milliseconds = {
        "lateness, median": "p50_ms",
        "lateness, 99 %": "p99_ms",
        "lateness, 99.9 %": "p999_ms",
        "lateness, largest": "max_ms",
        "age of an action, median": "action_age_p50_ms",
        "age of an action, largest": "action_age_max_ms",
    }
    return {
        "deadlines missed": of_ticks(deploy),
        **{label: f"{deploy[key]:.2f} ms" for label, key in milliseconds.items()},
        "limits exceeded": str(deploy["limit_violations"]),
        "holds": str(deploy["holds"]),
        "scheduling": str(deploy["scheduling"]),
    }


def this_run(
    summary: Mapping[str, Any], finished: Mapping[str, Finished], work: Path
) -> html.Section:
    """Returns time by phase, the machine, and the command behind each phase."""
    phases = charts.timeline(list(summary["phases"].items()))
    lines = [(name, _readable(phase.command, work)) for name, phase in finished.items()]
    cards = [
        html.Card(title="Time", html=phases),
        html.Card(title="Environment", html=html.facts(summary["environment"])),
        html.Card(title="The commands behind it", html=html.commands(lines), is_wide=True),
    ]
    return html.Section(title="This run", cards=cards)


def next_steps(cfg: DemoConfig, work: Path) -> html.Section:
    """Returns commands that go on from here."""
    policy = _readable(str(work / CHECKPOINT), work)
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


def of_ticks(deploy: Mapping[str, Any]) -> str:
    """Returns missed deadlines out of all."""
    return f"{deploy['misses']} of {deploy['ticks']}"
