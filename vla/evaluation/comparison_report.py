"""A comparison to read: as a page with charts, as tables in Markdown, and as the page of findings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from vla.evaluation import charts, html
from vla.evaluation.claims import Expects, Finding, Verdict
from vla.evaluation.comparison import (
    ArmShown,
    Column,
    ExperimentShown,
    Results,
    unfinished,
    unmatched,
)
from vla.evaluation.estimates import Estimate

QUICK = (
    "Tried with tiny data and a few steps, to see that every part runs. The figures mean nothing."
)
INTERVALS = (
    "Means over the seeds with 95 % intervals that go by seeds: Student's interval of the seeds' figures, and never "
    "narrower than the seeds' own intervals (Wilson's for shares, a bootstrap over pictures for the rest) joined."
)
NOTHING = "Not measured yet."
_ROLES = ("after", "train", "validation", "before", "neutral", "limit")
_SHIFT = 3.0
_VERDICT_ROLES = {Verdict.HOLDS: "after", Verdict.OPPOSITE: "limit"}


def page(
    results: Results,
    experiments: Sequence[ExperimentShown],
    findings: Sequence[Finding],
    command: str,
) -> html.Page:
    """Returns the report of a comparison.

    Args:
        results: what was measured, complete or not.
        experiments: in the order of the page.
        findings: the claims with their verdicts.
        command: what a person would type.
    """
    counts = Counter(finding.verdict for finding in findings)
    figures = [
        html.Figure(value=str(counts[verdict]), label=verdict.value, role=_role(verdict))
        for verdict in Verdict
        if counts[verdict]
    ]
    failures = [run for run in results.runs if run.failure]
    sections = [_section(results, experiment) for experiment in experiments]
    if failures:
        rows = [[run.experiment, run.arm, str(run.seed), run.failure] for run in failures]
        failed = html.table(["experiment", "arm", "seed", "reason"], rows, numeric_from=4)
        cards = [html.Card(html=failed, is_wide=True)]
        sections.append(html.Section(title="What did not run", cards=cards))
    return html.Page(
        title="Three generations, side by side",
        kicker="vla compare",
        verdict=QUICK if results.is_quick else _preamble(results, experiments),
        figures=figures,
        sections=[_claims_section(findings), *sections],
        footer=command,
    )


def markdown(results: Results, experiments: Sequence[ExperimentShown]) -> str:
    """Returns every experiment as a heading, its question and a table."""
    parts = [f"**{QUICK}**" if results.is_quick else _preamble(results, experiments)]
    for experiment in experiments:
        parts += [f"## {experiment.title}", experiment.question]
        if not _is_measured(results, experiment):
            parts.append(NOTHING)
            continue
        for group, columns in _groups(results, experiment):
            head, rows = _grid(results, experiment, columns)
            parts += [
                *([f"**{group.capitalize()}**"] if group else []),
                _markdown_table(head, rows),
            ]
        if note := _note(results, experiment):
            parts.append(note)
    return "\n\n".join(parts) + "\n"


def findings_page(
    results: Results,
    experiments: Sequence[ExperimentShown],
    findings: Sequence[Finding],
    command: str,
) -> str:
    """Returns, in Markdown, where the text's claims held here and where not; claims not measured are named as such."""
    titles = {experiment.name: experiment.title for experiment in experiments}
    seeds = sorted({run.seed for run in results.runs if run.metrics})
    parts = [
        "# Findings",
        "Where the claims of the text held here, at the size that a CPU can train, and where they did not. This page "
        f"is written by `{command}` from its results.json: each verdict is read off an interval. Seeds: "
        f"{', '.join(map(str, seeds))}. A claim about models a thousand times larger is not refuted here.",
        _preamble(results, experiments),
    ]
    counts = Counter(finding.verdict for finding in findings)
    listed = ", ".join(
        f"{counts[verdict]} {verdict.value.partition(':')[0]}"
        for verdict in Verdict
        if counts[verdict]
    )
    parts.append(f"Of {len(findings)} claims: {listed}.")
    for verdict in Verdict:
        own = [finding for finding in findings if finding.verdict is verdict]
        if own:
            parts.append(f"## {verdict.value.capitalize()}")
            parts += [_finding(finding, titles) for finding in own]
    parts += ["# Figures", markdown(results, experiments).split("\n\n", 1)[1].rstrip()]
    return "\n\n".join(parts) + "\n"


def shown(
    estimate: Estimate | None,
    *,
    is_share: bool = True,
    is_signed: bool = False,
    scale: float = 1.0,
    unit: str = "",
    has_count: bool = False,
) -> str:
    """Returns `81.2 % (77.6 to 84.3; n 400)`, the value alone where nobody knows an interval, `-` without a figure."""
    if estimate is None or not math.isfinite(estimate.value):
        return "-"
    scale, sign = (100.0, "+" if is_signed else "") if is_share else (scale, "")
    unit = "" if is_signed else "%" if is_share else unit
    bounds = estimate.low, estimate.high
    if is_share and not is_signed:  # Student's interval knows nothing of 0 and 1
        bounds = max(0.0, estimate.low), min(1.0, estimate.high)
    value, low, high = (f"{scale * number:{sign}.1f}" for number in (estimate.value, *bounds))
    told = f"{value} {unit}".rstrip()
    if not math.isfinite(estimate.high - estimate.low):
        return told
    count = f"; n {estimate.n:,}" if has_count else ""
    return f"{told} ({low} to {high}{count})"


def _preamble(results: Results, experiments: Sequence[ExperimentShown]) -> str:
    told = (unfinished(results, experiments), results.budgets, INTERVALS)
    return " ".join(text for text in told if text)


def _section(results: Results, experiment: ExperimentShown) -> html.Section:
    if not _is_measured(results, experiment):
        card = html.Card(html=f"<p>{NOTHING}</p>", is_wide=True)
        return html.Section(title=experiment.title, lead=experiment.question, cards=[card])
    cards = [
        html.Card(title=column.title, html=_chart(results, experiment, column))
        for column in experiment.columns
        if column.is_share and _has(results, experiment, column)
    ]
    groups = _groups(results, experiment)
    tables = [
        html.Card(
            title=group.capitalize(),
            html=_wrapping(html.table(*_grid(results, experiment, columns))),
            is_wide=True,
            note=_note(results, experiment) if place == len(groups) else "",
        )
        for place, (group, columns) in enumerate(groups, 1)
    ]
    return html.Section(title=experiment.title, lead=experiment.question, cards=[*cards, *tables])


def _claims_section(findings: Sequence[Finding]) -> html.Section:
    head = ["claim", "what was done", "verdict", "effect, points"]
    rows = [
        [
            finding.claim.says,
            finding.claim.test,
            finding.verdict.value,
            shown(finding.effect, is_signed=True),
        ]
        for finding in findings
    ]
    lead = "The verdict is read off the interval of the effect over the seeds."
    card = html.Card(html=_wrapping(html.table(head, rows, numeric_from=4)), is_wide=True)
    return html.Section(title="What the text claims", lead=lead, cards=[card])


def _wrapping(table: str) -> str:
    """The same table with cells that break into lines: sentences, and figures with their intervals, are long."""
    for cell in ("<td", "<th"):
        table = table.replace(cell, f'{cell} style="white-space: normal"')
    return table.replace('<th style="white-space: normal"ead', "<thead")


def _chart(results: Results, experiment: ExperimentShown, column: Column) -> str:
    """Bars with whiskers, or lines where the arms are points of lines."""
    figures = {
        arm.name: results.figure(experiment.name, arm.name, column.name) for arm in experiment.arms
    }
    if any(arm.series for arm in experiment.arms):
        return _lines(experiment, figures, column)
    rows = [
        charts.Interval(
            label=arm.label or arm.title,
            value=estimate.value,
            low=max(0.0, estimate.low),
            high=min(1.0, estimate.high),
            role="after",
        )
        for arm in experiment.arms
        if (estimate := figures[arm.name]) is not None and math.isfinite(estimate.value)
    ]
    return charts.interval_chart(rows)


def _lines(experiment: ExperimentShown, figures: dict[str, Estimate | None], column: Column) -> str:
    names = list(dict.fromkeys(arm.series for arm in experiment.arms))
    lines = []
    for place, name in enumerate(names):
        own = [
            (arm.x, estimate)
            for arm in experiment.arms
            if arm.series == name and (estimate := figures[arm.name]) and arm.x is not None
        ]
        lines.append(
            charts.Series(
                label=name,
                x=[x for x, _ in own],
                y=[100 * estimate.value for _, estimate in own],
                low=[100 * max(0.0, estimate.low) for _, estimate in own],
                high=[100 * min(1.0, estimate.high) for _, estimate in own],
                role=_ROLES[place % len(_ROLES)],
                has_points=True,
                shift=_SHIFT * (place - (len(names) - 1) / 2),
            )
        )
    legend = charts.legend([(line.role, line.label) for line in lines])
    chart = charts.line_chart(lines, x_label=experiment.x_label, y_label=f"{column.title}, %")
    return chart + legend


def _groups(results: Results, experiment: ExperimentShown) -> list[tuple[str, list[Column]]]:
    """The columns that anybody has a figure for, those of a group together, in the order of their first."""
    groups: dict[str, list[Column]] = {}
    for column in experiment.columns:
        if _has(results, experiment, column):
            groups.setdefault(column.group, []).append(column)
    return list(groups.items())


def _grid(
    results: Results, experiment: ExperimentShown, columns: Sequence[Column]
) -> tuple[list[str], list[list[str]]]:
    head = ["arm", *(column.title for column in columns), "seeds"]
    return head, [_row(results, experiment, arm, columns) for arm in experiment.arms]


def _row(
    results: Results, experiment: ExperimentShown, arm: ArmShown, columns: Sequence[Column]
) -> list[str]:
    own = [run for run in results.runs if (run.experiment, run.arm) == (experiment.name, arm.name)]
    cells = [_cell(results, experiment.name, arm.name, column) for column in columns]
    whole = sum(run.is_whole for run in own)
    parts = sum(bool(run.metrics) and not run.is_whole for run in own)
    seeds = f"{whole} + {parts} in part" if parts else str(whole)
    return [arm.title, *cells, seeds]


def _cell(results: Results, experiment: str, arm: str, column: Column) -> str:
    estimate = results.figure(experiment, arm, column.name)
    if estimate is not None:
        is_counted = column.is_share and estimate.n > 0
        return shown(
            estimate,
            is_share=column.is_share,
            scale=column.scale,
            unit=column.unit,
            has_count=is_counted,
        )
    fact = results.fact(experiment, arm, column.name)
    if fact is None:
        return "-"
    digits = 0 if abs(fact) >= 100 else 1
    return f"{column.scale * fact:,.{digits}f}{' ' + column.unit if column.unit else ''}"


def _is_measured(results: Results, experiment: ExperimentShown) -> bool:
    return any(_has(results, experiment, column) for column in experiment.columns)


def _has(results: Results, experiment: ExperimentShown, column: Column) -> bool:
    return any(
        column.name in run.metrics or column.name in run.facts
        for run in results.runs
        if run.experiment == experiment.name
    )


def _note(results: Results, experiment: ExperimentShown) -> str:
    spread = {
        "Parameters": unmatched(results, experiment, "parameters", 0.1),
        "Processor seconds of training": unmatched(results, experiment, "cpu_seconds", 0.1),
    }
    told = [f"{name} differ by more than a tenth: {text}." for name, text in spread.items() if text]
    return " ".join(told)


def _finding(finding: Finding, titles: dict[str, str]) -> str:
    claim = finding.claim
    effect = ""
    if finding.effect is not None:
        wanted = "above zero" if claim.expects is Expects.MORE else "next to nothing"
        told = shown(finding.effect, is_signed=True)
        effect = f": **{told} points**, {_seeds(finding)}; expected {wanted}"
    return f"- “{claim.says}” {claim.test} ({titles[claim.experiment]}){effect}."


def _seeds(finding: Finding) -> str:
    assert finding.effect is not None
    if finding.num_seeds == 1:
        return "one seed, so that how seeds differ is not known"
    return f"{finding.num_seeds} seeds"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)])


def _role(verdict: Verdict) -> str:
    return _VERDICT_ROLES.get(verdict, "neutral")
