"""`vla eval latency_ms=0,100,200 scheduler=...`: what a delay costs, for every scheduler on the same scenes."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path
from typing import Any

from policies.config import PolicyKind
from vla.cli import evaluate
from vla.cli.run_directory import write_text
from vla.errors import ConfigError
from vla.evaluation.episode import Episode
from vla.evaluation.pool import Job

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"


def run(cfg: evaluate.EvalConfig, directory: Path) -> dict[str, Any]:
    """Evaluates every case, prints the table, writes report.html and returns the summary.

    Leaves one folder per case with its episodes.jsonl. Keys of the summary: task, policy_name, episodes, seed, cases
    (see `vla.evaluation.sweep.case`), report, policy, env.
    """
    from vla.cli.convert import to_plain
    from vla.evaluation import html, sweep

    earlier = [_read(folder) for folder in cfg.beside]
    cases = _evaluate(cfg, directory)
    print(sweep.text_table(cases))
    study: dict[str, Any] = {
        "task": cfg.env.task,
        "policy_name": _policy_name(cfg),
        "episodes": cfg.episodes,
        "seed": cfg.seed,
        "cases": cases,
    }
    report = directory / "report.html"
    write_text(report, html.render(sweep.page([*earlier, study], _command(cfg))))
    print(f"report: {report}")
    if any(one["exceptions"] for one in cases):
        study |= {"exit_code": 1, "status": "exceptions"}
    return {**study, "report": report, "policy": to_plain(cfg.policy), "env": to_plain(cfg.env)}


def _evaluate(cfg: evaluate.EvalConfig, directory: Path) -> list[dict[str, Any]]:
    from vla.evaluation import pool, sweep
    from vla.types import END_EFFECTOR_DELTA_7D

    jobs = [evaluate.make_job(cfg, rollout) for rollout in cfg.rollouts()]
    with evaluate.progress(len(jobs) * cfg.episodes) as show:

        def on_episode(job: Job, episode: Episode) -> None:
            del job
            show(episode)

        outcomes = pool.evaluate_each(jobs, num_workers=cfg.num_workers, on_episode=on_episode)
    cases = []
    for job, episodes in zip(jobs, outcomes, strict=True):
        schedule, latency_ms = job.config.scheduler, job.config.latency_ms
        folder = directory / f"{schedule.value}_{latency_ms:g}ms"
        folder.mkdir()
        evaluate.write_jsonl(folder / "episodes.jsonl", episodes)
        for episode in episodes:
            if not episode.is_scored:
                logger.error(
                    "%s, seed %d crashed, not scored: %s", folder.name, episode.seed, episode.error
                )
        cases.append(sweep.case(schedule, latency_ms, episodes, END_EFFECTOR_DELTA_7D.dt_s))
    return cases


def _read(folder: Path) -> dict[str, Any]:
    """Returns the summary of an earlier comparison; raises ConfigError when the folder holds none."""
    try:
        study = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return {key: study[key] for key in ("task", "policy_name", "episodes", "seed", "cases")}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"beside={folder} holds no comparison ({error}); give the folder of a finished "
            "`vla eval` with several latencies or schedulers"
        ) from error


def _policy_name(cfg: evaluate.EvalConfig) -> str:
    if cfg.policy.kind is not PolicyKind.CHECKPOINT:
        return f"policy={cfg.policy.kind.value}"
    return f"policy={Path(cfg.policy.path).name}"


def _command(cfg: evaluate.EvalConfig) -> str:
    settings = {
        "env": cfg.env.task,
        "latency_ms": ",".join(f"{latency:g}" for latency in cfg.latency_ms),
        "scheduler": ",".join(schedule.value for schedule in cfg.scheduler),
        "episodes": cfg.episodes,
        "seed": cfg.seed,
    }
    name = _policy_name(cfg)
    return shlex.join(["vla", "eval", name, *(f"{key}={value}" for key, value in settings.items())])
