"""Success against latency: every scheduler at every latency on the same scenes, as a table and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla.control.schedule import Schedule
from vla.evaluation import charts, html
from vla.evaluation.episode import Episode
from vla.evaluation.report import count_failures, percent, rate_of

_ROLES = {
    Schedule.SYNCHRONOUS: "before",
    Schedule.ASYNCHRONOUS: "train",
    Schedule.TEMPORAL_ENSEMBLE: "validation",
    Schedule.REAL_TIME_CHUNKING: "after",
}
_SHIFT = 4.0  # drawing units between the schedulers' points of one latency, so that their whiskers stay apart


def case(
    schedule: Schedule, latency_ms: float, episodes: Sequence[Episode], dt_s: float
) -> dict[str, Any]:
    """Returns the figures of one scheduler at one latency.

    Keys: scheduler, latency_ms, success_rate, low, high, successes, episodes, failures (class to count),
    seconds_to_success (mean simulated time of the successful ones, None when there is none), exceptions (count).
    """
    steps = [episode.steps for episode in episodes if episode.is_success]
    return {
        "scheduler": schedule.value,
        "latency_ms": latency_ms,
        **rate_of(episodes).to_dict(),
        "failures": count_failures(episodes),
        "seconds_to_success": float(np.mean(steps)) * dt_s if steps else None,
        "exceptions": sum(not episode.is_scored for episode in episodes),
    }


def kept(cases: Sequence[Mapping[str, Any]], one: Mapping[str, Any]) -> float | None:
    """Returns the share of its scheduler's success at the smallest latency that a case has, None where that is 0."""
    own = [known for known in cases if known["scheduler"] == one["scheduler"]]
    reference = min(own, key=lambda known: known["latency_ms"])["success_rate"]
    return one["success_rate"] / reference if reference else None


def text_table(cases: Sequence[Mapping[str, Any]]) -> str:
    """Returns one row per scheduler, one column per latency: success, its 95 % interval, and the time it took."""
    head, rows = _grid(cases)
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def page(studies: Sequence[Mapping[str, Any]], command: str) -> html.Page:
    """Returns the report of one or several sweeps.

    Args:
        studies: summaries with the keys task, policy_name, cases, episodes and seed.
        command: what a person would type.
    """
    return html.Page(
        title="What a delay costs",
        kicker="vla eval",
        verdict=" ".join(_verdict(study) for study in studies),
        sections=[_section(study) for study in studies],
        footer=command,
    )


def _verdict(study: Mapping[str, Any]) -> str:
    cases = study["cases"]
    latency = _headline_latency(cases)
    shares = [
        f"{_words(one['scheduler'])} {_share(kept(cases, one))}"
        for one in cases
        if one["latency_ms"] == latency
    ]
    return f"{_words(study['task'])} at {latency:g} ms keeps of its success without latency: {', '.join(shares)}."


def _section(study: Mapping[str, Any]) -> html.Section:
    cases = study["cases"]
    names = list(dict.fromkeys(one["scheduler"] for one in cases))
    head = ["scheduler", "latency", "success", "95 % interval", "kept", "time"]
    rows = [_row(cases, one) for one in cases]
    legend = charts.legend([(_ROLES[Schedule(name)], _words(name)) for name in names])
    lead = (
        f"{study['policy_name']} on {study['episodes']} scenes from seed {study['seed']}, the same for every point. A "
        "step lasts a tenth of a second; while the arm waits, the clock of the episode runs on. The policy answers one "
        "observation at a time."
    )
    cards = [
        html.Card(
            title="Success, %",
            html=_chart(cases, names, "success, %", _success) + legend,
            note="Whiskers: Wilson's 95 % interval.",
        ),
        html.Card(
            title="Time of a success, s",
            html=_chart(cases, names, "seconds", _seconds) + legend,
            note="Mean simulated time of the successful episodes.",
        ),
        html.Card(
            html=html.table(head, rows, numeric_from=1),
            is_wide=True,
            note="Kept: of the same scheduler's success at the smallest latency. Time: mean of a success.",
        ),
    ]
    return html.Section(title=_words(study["task"]), lead=lead, cards=cards)


def _chart(cases: Sequence[Mapping[str, Any]], names: Sequence[str], label: str, read: Any) -> str:
    series = []
    for place, name in enumerate(names):
        own = [one for one in cases if one["scheduler"] == name]
        values = [read(one) for one in own]
        series.append(
            charts.Series(
                label=_words(name),
                x=[one["latency_ms"] for one in own],
                y=[value for value, _, _ in values],
                low=[low for _, low, _ in values],
                high=[high for _, _, high in values],
                role=_ROLES[Schedule(name)],
                has_points=True,
                shift=_SHIFT * (place - (len(names) - 1) / 2),
            )
        )
    return charts.line_chart(series, x_label="latency, ms", y_label=label)


def _success(one: Mapping[str, Any]) -> tuple[float, float, float]:
    return 100 * one["success_rate"], 100 * one["low"], 100 * one["high"]


def _seconds(one: Mapping[str, Any]) -> tuple[float, float, float]:
    seconds = float("nan") if one["seconds_to_success"] is None else one["seconds_to_success"]
    return seconds, seconds, seconds


def _grid(cases: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    latencies = sorted({one["latency_ms"] for one in cases})
    names = dict.fromkeys(one["scheduler"] for one in cases)
    by_place = {(one["scheduler"], one["latency_ms"]): one for one in cases}
    head = ["scheduler", *(f"{latency:g} ms" for latency in latencies)]
    rows = [
        [_words(name), *(_cell(cases, by_place.get((name, latency))) for latency in latencies)]
        for name in names
    ]
    return head, rows


def _cell(cases: Sequence[Mapping[str, Any]], one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    _, _, success, interval, share, time = _row(cases, one)
    return f"{success} ({interval}), kept {share}, {time}"


def _row(cases: Sequence[Mapping[str, Any]], one: Mapping[str, Any]) -> list[str]:
    seconds = one["seconds_to_success"]
    return [
        _words(one["scheduler"]),
        f"{one['latency_ms']:g} ms",
        percent(one["success_rate"]),
        f"{100 * one['low']:.0f} to {100 * one['high']:.0f}",
        _share(kept(cases, one)),
        "-" if seconds is None else f"{seconds:.1f} s",
    ]


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _headline_latency(cases: Sequence[Mapping[str, Any]]) -> float:
    """Returns 200 ms where it was measured, else the largest latency."""
    latencies = {one["latency_ms"] for one in cases}
    return 200.0 if 200.0 in latencies else max(latencies)


def _words(name: str) -> str:
    return name.replace("_", " ")
