"""A comparison to read: as a page with charts, as tables in Markdown, and as the page of findings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from vla.evaluation import charts, html
from vla.evaluation.claims import Expects, Finding, Verdict
from vla.evaluation.comparison import ArmShown, Column, ExperimentShown, Results, unmatched
from vla.evaluation.estimates import Estimate

QUICK = (
    "Tried with tiny data and a few steps, to see that every part runs. The figures mean nothing."
)
INTERVALS = (
    "Means over the seeds with 95 % intervals that go by seeds: Student's interval of the seeds' figures, and never "
    "narrower than the seeds' own intervals (Wilson's for shares, a bootstrap over pictures for the rest) joined."
)
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
        verdict=QUICK if results.is_quick else INTERVALS,
        figures=figures,
        sections=[_claims_section(findings), *sections],
        footer=command,
    )


def markdown(results: Results, experiments: Sequence[ExperimentShown]) -> str:
    """Returns every experiment as a heading, its question and a table."""
    parts = [f"**{QUICK}**" if results.is_quick else INTERVALS]
    for experiment in experiments:
        head, rows = _grid(results, experiment)
        parts += [f"## {experiment.title}", experiment.question, _markdown_table(head, rows)]
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
    seeds = sorted({run.seed for run in results.runs})
    parts = [
        "# Findings",
        "Where the claims of the text held here, at the size that a CPU can train, and where they did not. This page "
        f"is written by `{command}` from its results.json: each verdict is read off an interval. {INTERVALS} Seeds: "
        f"{', '.join(map(str, seeds))}. A claim about models a thousand times larger is not refuted here.",
    ]
    for verdict in Verdict:
        own = [finding for finding in findings if finding.verdict is verdict]
        if own:
            parts.append(f"## {verdict.value.capitalize()}")
            parts += [_finding(finding, titles) for finding in own]
    parts += ["# Figures", markdown(results, experiments).split("\n\n", 1)[1].rstrip()]
    return "\n\n".join(parts) + "\n"


def shown(estimate: Estimate | None, *, is_share: bool = True, is_signed: bool = False) -> str:
    """Returns `81.2 % (77.6 to 84.3)`, or `-` where nothing was measured."""
    if estimate is None or not math.isfinite(estimate.value):
        return "-"
    scale, sign = (100.0, "+" if is_signed else "") if is_share else (1.0, "")
    unit = " %" if is_share and not is_signed else ""
    value, low, high = (
        f"{scale * number:{sign}.1f}" for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value}{unit} ({low} to {high})"


def _section(results: Results, experiment: ExperimentShown) -> html.Section:
    head, rows = _grid(results, experiment)
    cards = [
        html.Card(title=column.title, html=_chart(results, experiment, column))
        for column in experiment.columns
        if column.is_share and _has(results, experiment, column)
    ]
    table = html.Card(html=html.table(head, rows), is_wide=True, note=_note(results, experiment))
    return html.Section(title=experiment.title, lead=experiment.question, cards=[*cards, table])


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
    card = html.Card(html=html.table(head, rows, numeric_from=4), is_wide=True)
    return html.Section(title="What the text claims", lead=lead, cards=[card])


def _chart(results: Results, experiment: ExperimentShown, column: Column) -> str:
    """Bars with whiskers, or lines where the arms are points of lines."""
    figures = {
        arm.name: results.figure(experiment.name, arm.name, column.name) for arm in experiment.arms
    }
    if any(arm.series for arm in experiment.arms):
        return _lines(experiment, figures, column)
    rows = [
        charts.Interval(
            label=arm.title,
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


def _grid(results: Results, experiment: ExperimentShown) -> tuple[list[str], list[list[str]]]:
    columns = [column for column in experiment.columns if _has(results, experiment, column)]
    head = ["arm", *(column.title for column in columns), "seeds"]
    return head, [_row(results, experiment, arm, columns) for arm in experiment.arms]


def _row(
    results: Results, experiment: ExperimentShown, arm: ArmShown, columns: Sequence[Column]
) -> list[str]:
    own = [run for run in results.runs if (run.experiment, run.arm) == (experiment.name, arm.name)]
    cells = [_cell(results, experiment.name, arm.name, column) for column in columns]
    return [arm.title, *cells, str(sum(not run.failure for run in own))]


def _cell(results: Results, experiment: str, arm: str, column: Column) -> str:
    estimate = results.figure(experiment, arm, column.name)
    if estimate is not None:
        return shown(estimate, is_share=column.is_share)
    fact = results.fact(experiment, arm, column.name)
    if fact is None:
        return "-"
    digits = 0 if abs(fact) >= 100 else 1
    return f"{fact:,.{digits}f}{' ' + column.unit if column.unit else ''}"


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
    effect = "nothing was measured"
    if finding.effect is not None:
        wanted = "above zero" if claim.expects is Expects.MORE else "next to nothing"
        num = finding.effect.num_pictures
        effect = f"{shown(finding.effect, is_signed=True)} points, {num} seeds; expected {wanted}"
    return f"- “{claim.says}” {claim.test} ({titles[claim.experiment]}): {effect}."


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)])


def _role(verdict: Verdict) -> str:
    return _VERDICT_ROLES.get(verdict, "neutral")
