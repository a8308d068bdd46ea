"""What a comparison is made of: experiments of arms, each a chain of steps whose summaries are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vla.cli.compare_steps import Done, Step, StepError, Workshop
from vla.evaluation.comparison import ArmShown, Column, ExperimentShown, Run
from vla.evaluation.estimates import Estimate
from vla.evaluation.intervals import wilson_bounds

TRAINING_VERBS = ("pretrain", "train")
TABLETOP_TASKS = ("reach", "pick_cube", "place_in_bowl", "stack", "push", "open_drawer")


@dataclass(kw_only=True)
class Sizes:
    """How much of everything; times are processor seconds of training, the budget of every arm."""

    picture: int = 64  # pixels, square, of scenes and cameras
    scenes: int = 20_000  # labelled pictures to learn from
    held_out_scenes: int = 1_000
    special_scenes: int = 6_000  # of each special kind: detail, wide, motion
    held_out_special_scenes: int = 400
    pool: int = 64  # pictures and captions that retrieval searches among
    examined: int = 256  # held-out pictures that finished models are asked about
    tasks: list[str] = field(default_factory=lambda: list(TABLETOP_TASKS))
    demonstrations: int = 300  # of each task
    episodes: int = 100  # of each task, for success
    tower_seconds: float = 900.0  # stage 1, or longer stage 2 where there is no stage 1
    codec_seconds: float = 300.0  # of the mask codec that all arms share
    answers_seconds: float = 1800.0  # stage 2
    policy_seconds: float = 3600.0  # robot data
    experiment_seconds: float = 900.0  # each arm of the smaller experiments
    steps: int = 1_000_000  # of any training, should the time last that long
    batch_size: int = 64
    batch_sizes: list[int] = field(default_factory=lambda: [16, 64, 256])  # sigmoid against softmax
    few_demonstrations: list[int] = field(default_factory=lambda: [10, 30, 100])
    max_steps: int | None = None  # of an episode; null: the task's own limit
    num_workers: int | None = None  # of simulation; null: one per core


QUICK = Sizes(
    scenes=6,
    held_out_scenes=4,
    special_scenes=4,
    held_out_special_scenes=2,
    pool=2,
    examined=1,
    tasks=["reach"],
    demonstrations=3,
    episodes=1,
    steps=1,
    batch_size=4,  # a quarter of it may be scenes
    batch_sizes=[2, 4],
    few_demonstrations=[3],
    max_steps=2,
    num_workers=0,
)


@dataclass(frozen=True, kw_only=True)
class Read:
    """Where a summary has a figure: keys with dots between; a last `*` takes all keys, each behind the figure's name.

    Attributes:
        n: where it has the number of outcomes, for a share that comes without an interval.
    """

    path: str
    n: str = ""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A step and what its summary says: figures with intervals, and plain numbers."""

    step: Step
    metrics: Mapping[str, Read] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing that is compared; `readings` says what to run for a seed."""

    name: str
    title: str
    readings: Callable[[int], Sequence[Reading]]
    series: str = ""
    x: float | None = None


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
            ArmShown(name=arm.name, title=arm.title, series=arm.series, x=arm.x)
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
    ended = [done for step in chain.values() if (done := workshop.done(step)) is not None]
    facts["cpu_seconds"] = sum(_training_seconds(done) for done in ended)
    return Run(
        experiment=experiment,
        arm=arm.name,
        seed=seed,
        metrics=metrics,
        facts=facts,
        folders={done.step.key: str(done.folder) for done in ended},
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
