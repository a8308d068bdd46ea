"""`vla compare`: the generations and the text's claims, measured arm by arm. The same command again goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.cli.compare.sizes import QUICK, Sizes
from vla.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from vla.cli.compare.plan import Experiment
    from vla.cli.compare.steps import Workshop
    from vla.evaluation.comparison import Results, Run

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CompareConfig:
    """What is compared, how large, and where the steps are kept."""

    quick: bool = (
        False  # tiny data and one step of everything: tries the plumbing, its figures mean nothing
    )
    only: list[str] = field(default_factory=list)  # experiments, or experiment.arm; empty = all
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2]
    )  # of weights and order; the data are the same
    work: Path = Path(
        "outputs/comparison"
    )  # folder of the steps; what is done there is not done again
    sizes: Sizes = field(
        default_factory=Sizes
    )  # full | laptop: data and budgets; quick has its own
    report_only: bool = False  # run nothing; report on what is done
    findings: Path | None = None  # also write the page of findings there

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds must be one or several different numbers; got {self.seeds}")
        if self.quick and self.findings is not None:
            raise ConfigError("quick=true finds nothing out; leave findings=PATH to a full run")


def run(cfg: CompareConfig, directory: Path) -> dict[str, Any]:
    """Runs what is not done yet, writes results.json, table.md and report.html, and returns the verdicts."""
    from vla.cli.compare import runners
    from vla.cli.compare.steps import Workshop

    sizes = QUICK if cfg.quick else cfg.sizes
    runner = runners.run_in_process if cfg.quick else runners.run_as_process
    workshop = Workshop(root=cfg.work.expanduser().absolute(), runner=runner)
    experiments = chosen_experiments(cfg.only, sizes)
    runs = _run_all(cfg, workshop, experiments)
    return _report(cfg, sizes, directory, experiments, runs)


def chosen_experiments(only: Sequence[str], sizes: Sizes) -> list[Experiment]:
    """Returns the experiments that are named, with the arms that are named.

    Raises:
        ConfigError: a name that there is not.
    """
    from dataclasses import replace

    from vla.cli.compare.experiments import all_experiments

    known = all_experiments(sizes)
    names = [one.name for one in known]
    arms = [f"{one.name}.{arm.name}" for one in known for arm in one.arms]
    for name in only:
        if name not in (*names, *arms):
            raise ConfigError(unknown_name("experiment or arm", name, [*names, *arms]))
    if not only:
        return known
    chosen = [
        replace(
            one,
            arms=[a for a in one.arms if {one.name, f"{one.name}.{a.name}"} & set(only)],
        )
        for one in known
    ]
    return [one for one in chosen if one.arms]


def _run_all(
    cfg: CompareConfig, workshop: Workshop, experiments: Sequence[Experiment]
) -> list[Run]:
    """Seed by seed, so that an interrupted comparison has whole seeds."""
    from rich.console import Console

    from vla.cli.compare.plan import read_arm, run_arm

    console = Console(stderr=True)
    jobs = [(seed, one, arm) for seed in cfg.seeds for one in experiments for arm in one.arms]
    runs = []
    for number, (seed, experiment, arm) in enumerate(jobs, 1):
        if cfg.report_only:
            runs.append(read_arm(workshop, experiment.name, arm, seed))
            continue
        begun = time.monotonic()
        done = run_arm(workshop, experiment.name, arm, seed)
        runs.append(done)
        took = time.monotonic() - begun
        state = f"[red]{done.failure}[/red]" if done.failure else f"{took:.0f} s"
        console.print(f"{number}/{len(jobs)} {experiment.name}.{arm.name}, seed {seed}: {state}")
    return runs


def _report(
    cfg: CompareConfig,
    sizes: Sizes,
    directory: Path,
    experiments: Sequence[Experiment],
    runs: Sequence[Run],
) -> dict[str, Any]:
    from vla.cli import convert, run_directory
    from vla.cli.compare.claims import all_claims
    from vla.cli.environment import environment
    from vla.evaluation.claims import Verdict, judge
    from vla.evaluation.comparison import Results
    from vla.evaluation.comparison_report import markdown, page
    from vla.evaluation.html import render

    results = Results(
        runs=[one for one in runs if one.metrics or one.failure],
        is_quick=cfg.quick,
        budgets=sizes.told(),
        settings={**convert.to_plain(cfg), "sizes": convert.to_plain(sizes)},
        environment=environment(),
    )
    named = {one.name for one in experiments}
    claims = [claim for claim in all_claims(sizes) if claim.experiment in named]
    findings = judge(claims, results)
    shown = [one.shown() for one in experiments]
    command = "vla compare quick=true" if cfg.quick else f"vla compare sizes={sizes.name}"
    run_directory.write_json(directory / "results.json", results.to_dict())
    run_directory.write_text(directory / "table.md", markdown(results, shown))
    run_directory.write_text(
        directory / "report.html", render(page(results, shown, findings, command))
    )
    if cfg.findings is not None:
        _write_findings(cfg.findings, results, shown, findings, command)
    print((directory / "table.md").read_text(encoding="utf-8"))
    for verdict in Verdict:
        for finding in findings:
            if finding.verdict is verdict and verdict is not Verdict.NOT_MEASURED:
                print(f"{verdict.value}: {finding.claim.name}")
    print(f"report: {directory / 'report.html'}")
    failures = {
        f"{one.experiment}.{one.arm}.{one.seed}": one.failure for one in runs if one.failure
    }
    return {
        "results": directory / "results.json",
        "report": directory / "report.html",
        "runs": len(results.runs),
        "verdicts": {finding.claim.name: finding.verdict.name.lower() for finding in findings},
        "failures": failures,
        **({"status": "failures", "exit_code": 1} if failures else {}),
    }


def _write_findings(path: Path, results: Results, shown: Any, findings: Any, command: str) -> None:
    """Nothing measured makes no page."""
    from vla.cli import run_directory
    from vla.evaluation.claims import Verdict
    from vla.evaluation.comparison_report import findings_page

    if all(finding.verdict is Verdict.NOT_MEASURED for finding in findings):
        logger.warning("no claim was measured; %s is not written", path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    run_directory.write_text(path, findings_page(results, shown, findings, command))
