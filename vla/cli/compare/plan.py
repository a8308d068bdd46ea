"""What a comparison is made of: experiments of arms, each a chain of steps whose summaries are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vla.cli.compare.steps import Done, Step, StepError, Workshop
from vla.evaluation.comparison import ArmShown, Column, ExperimentShown, Run
from vla.evaluation.estimates import Estimate, bare, mean_of
from vla.evaluation.intervals import wilson_bounds

TRAINING_VERBS = ("pretrain", "train")


@dataclass(frozen=True, kw_only=True)
class Read:
    """Where a summary has a figure: keys with dots between; a last `*` takes all keys, each behind the figure's name.

    Attributes:
        n: where it has the number of outcomes, for a share that comes without an interval.
        is_bare: a number that comes without an interval or a number of outcomes; only seeds tell how sure it is.
    """

    path: str
    n: str = ""
    is_bare: bool = False


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A step and what its summary says: figures with intervals, and plain numbers."""

    step: Step
    metrics: Mapping[str, Read] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing that is compared; `readings` says what to run for a seed.

    Attributes:
        label: the title in a dozen letters, for charts.
        means: figures that are the mean of others, which the readings have.
    """

    name: str
    title: str
    readings: Callable[[int], Sequence[Reading]]
    label: str = ""
    series: str = ""
    x: float | None = None
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Arms that differ in one thing, and what tells them apart."""

    name: str
    title: str
    question: str
    arms: Sequence[Arm]
    columns: Sequence[Column]
    x_label: str = ""

    def shown(self) -> ExperimentShown:
        """Returns what a reader is told of it."""
        arms = [
            ArmShown(name=arm.name, title=arm.title, label=arm.label, series=arm.series, x=arm.x)
            for arm in self.arms
        ]
        return ExperimentShown(
            name=self.name,
            title=self.title,
            question=self.question,
            arms=arms,
            columns=self.columns,
            x_label=self.x_label,
        )


def run_arm(workshop: Workshop, experiment: str, arm: Arm, seed: int) -> Run:
    """Returns what the arm achieved with that seed; what a failed step would have said is missing, and it says why."""
    failure = ""
    for reading in arm.readings(seed):
        try:
            workshop.make(reading.step)
        except StepError as error:
            failure = failure or str(error)
    return replace(read_arm(workshop, experiment, arm, seed), failure=failure)


def read_arm(workshop: Workshop, experiment: str, arm: Arm, seed: int) -> Run:
    """Returns what is known of the arm with that seed from steps that are done."""
    metrics: dict[str, Estimate] = {}
    facts: dict[str, float] = {}
    chain: dict[str, Step] = {}
    for reading in arm.readings(seed):
        chain |= reading.step.chain()
        if (done := workshop.done(reading.step)) is not None:
            _read(reading, done.summary, metrics, facts)
    for name, parts in arm.means.items():
        if all(part in metrics for part in parts):
            metrics[name] = mean_of([metrics[part] for part in parts])
    ended = [done for step in chain.values() if (done := workshop.done(step)) is not None]
    facts["cpu_seconds"] = sum(_training_seconds(done) for done in ended)
    return Run(
        experiment=experiment,
        arm=arm.name,
        seed=seed,
        metrics=metrics,
        facts=facts,
        folders={done.step.key: str(done.folder) for done in ended},
        num_missing=len(chain) - len(ended),
    )


def estimate_of(value: Any, n: Any = None) -> Estimate | None:
    """Returns a summary's figure as an estimate: an estimate, a success rate, or a share with its number of outcomes.

    None where it says that nothing was measured.
    """
    if isinstance(value, Mapping) and "success_rate" in value:
        episodes, rate = int(value["episodes"]), value["success_rate"]
        if not episodes or rate is None:
            return None
        low, high = float(value["low"]), float(value["high"])
        return _estimate(float(rate), low, high, episodes)
    if isinstance(value, Mapping) and "value" in value:
        return None if value["value"] is None else Estimate(**value)
    if isinstance(value, int | float) and math.isfinite(value) and n:
        return _estimate(float(value), *wilson_bounds(float(value), float(n)), int(n))
    return None


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n, num_pictures=n, method="Wilson")


def _read(
    reading: Reading,
    summary: Mapping[str, Any],
    metrics: dict[str, Estimate],
    facts: dict[str, float],
) -> None:
    for name, read in reading.metrics.items():
        if read.path.endswith(".*"):
            several = _at(summary, read.path[:-2]) or {}
            values = {f"{name}/{key}": value for key, value in several.items()}
        else:
            values = {name: _at(summary, read.path)}
        if read.is_bare:
            metrics |= {
                key: bare(float(value))
                for key, value in values.items()
                if isinstance(value, int | float)
            }
            continue
        n = _at(summary, read.n) if read.n else None
        metrics |= {
            key: estimate
            for key, value in values.items()
            if (estimate := estimate_of(value, n)) is not None
        }
    for name, path in reading.facts.items():
        if isinstance(value := _at(summary, path), int | float):
            facts[name] = float(value)


def _at(summary: Mapping[str, Any], path: str) -> Any:
    """The value at `a.b.c`, None where there is none; "." is the summary itself."""
    value: Any = summary
    for key in path.split(".") if path != "." else ():
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _training_seconds(done: Done) -> float:
    """Processor seconds that went into training steps; the verb counts them, without reading data or measuring."""
    return (
        float(done.summary.get("cpu_seconds") or 0.0) if done.step.verb in TRAINING_VERBS else 0.0
    )
