"""What a comparison found out: figures of every arm and seed, and what they say taken together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla.errors import VlaError
from vla.evaluation.estimates import Estimate, over_seeds

FORMAT = "vla-comparison"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm of one experiment, with one seed.

    Attributes:
        metrics: what was measured, each with the interval of this run alone.
        facts: plain numbers: parameters, processor seconds, cost of an action.
        folders: where its steps were run, by their names.
        failure: why a figure is missing, "" if none is.
        num_missing: steps that are still to be done.
    """

    experiment: str
    arm: str
    seed: int
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""
    num_missing: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all its figures are there."""
        return not self.failure and not self.num_missing

    def to_dict(self) -> dict[str, Any]:
        metrics = {name: estimate.to_dict() for name, estimate in self.metrics.items()}
        return {**vars(self), "metrics": metrics}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of a table.

    Attributes:
        name: of a metric or a fact.
        is_share: shown in percent.
        unit: behind a figure that is no share.
        scale: what a figure that is no share is multiplied with to be in that unit.
        group: columns of one group make a table of their own.
    """

    name: str
    title: str
    is_share: bool = True
    unit: str = ""
    scale: float = 1.0
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class ArmShown:
    """How an arm is called, in a chart by its short `label`; with `x` it is a point of the line `series` of a chart."""

    name: str
    title: str
    label: str = ""
    series: str = ""
    x: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentShown:
    """What a reader is told of an experiment: what is asked, of whom, and which figures answer it."""

    name: str
    title: str
    question: str
    arms: Sequence[ArmShown]
    columns: Sequence[Column]
    x_label: str = ""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that was measured.

    Attributes:
        is_quick: the plumbing was tried, and the figures mean nothing.
        budgets: in words, what every arm was given.
        settings: of the command.
        environment: the machine.
    """

    runs: Sequence[Run]
    is_quick: bool = False
    budgets: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def of(self, experiment: str, arm: str, metric: str) -> dict[int, Estimate]:
        """Returns seed to figure, where there is one."""
        return {
            run.seed: run.metrics[metric]
            for run in self.runs
            if (run.experiment, run.arm) == (experiment, arm) and metric in run.metrics
        }

    def figure(self, experiment: str, arm: str, metric: str) -> Estimate | None:
        """Returns the mean over the seeds with its interval (`over_seeds`), None where nothing was measured."""
        known = self.of(experiment, arm, metric)
        return over_seeds(list(known.values())) if known else None

    def fact(self, experiment: str, arm: str, name: str) -> float | None:
        """Returns a plain number, averaged over the seeds, None where it is not known."""
        known = [
            run.facts[name]
            for run in self.runs
            if (run.experiment, run.arm) == (experiment, arm) and name in run.facts
        ]
        return sum(known) / len(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "is_quick": self.is_quick,
            "budgets": self.budgets,
            "settings": dict(self.settings),
            "environment": dict(self.environment),
            "runs": [run.to_dict() for run in self.runs],
        }


def load_results(path: Path) -> Results:
    """Returns what results.json holds; raises VlaError when it is not one that this version wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VlaError(f"cannot read {path} ({error}); run `vla compare` first") from error
    if (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise VlaError(
            f"{path} is {content.get('format')} {content.get('version')}; expected {FORMAT} {VERSION}: "
            "measure again with this version"
        )
    runs = []
    for row in content["runs"]:
        metrics = {name: Estimate(**_finite(one)) for name, one in row["metrics"].items()}
        runs.append(Run(**{**row, "metrics": metrics}))
    return Results(
        runs=runs,
        is_quick=content["is_quick"],
        budgets=content.get("budgets", ""),
        settings=content["settings"],
        environment=content["environment"],
    )


def unfinished(results: Results, experiments: Sequence[ExperimentShown]) -> str:
    """Returns how much of what was planned is there, "" if all of it is."""
    seeds = results.settings.get("seeds", [])
    planned = sum(len(one.arms) for one in experiments) * len(seeds)
    named = {one.name for one in experiments}
    whole = sum(run.is_whole for run in results.runs if run.experiment in named)
    if whole >= planned:
        return ""
    return f"Unfinished: {whole} of {planned} runs (an arm with a seed) have all their figures."


def unmatched(results: Results, experiment: ExperimentShown, fact: str, tolerance: float) -> str:
    """Returns which arms differ in a fact by more than `tolerance` of the smallest, "" if none do."""
    known = {arm.title: results.fact(experiment.name, arm.name, fact) for arm in experiment.arms}
    values = {title: value for title, value in known.items() if value is not None}
    if not values or max(values.values()) <= (1 + tolerance) * min(values.values()):
        return ""
    least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return f"{values[least]:,.0f} ({least}) to {values[most]:,.0f} ({most})"


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinities: what was written as null comes back."""
    empty = {"value": float("nan"), "low": float("-inf"), "high": float("inf")}
    return {
        name: empty[name] if value is None and name in empty else value
        for name, value in values.items()
    }
