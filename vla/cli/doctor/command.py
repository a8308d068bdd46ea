"""`vla doctor`: a robot and a policy checked against each other before anything moves.

Exit status: 0 when nothing found forbids motion, 1 when something does (level `forbids`), 2 for a wrong command line.
Warnings do not change it.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from envs.config import EnvConfig
from policies.config import PolicyConfig, PolicyKind
from vla.cli import build
from vla.control.config import ControlConfig
from vla.errors import ConfigError
from vla.robots.config import RobotConfig


@dataclass(kw_only=True)
class DoctorConfig:
    """What is to be checked."""

    robot: RobotConfig = field(default_factory=RobotConfig)  # what would be driven
    env: EnvConfig = field(default_factory=EnvConfig)  # what stands before a simulated robot
    policy: PolicyConfig = field(default_factory=PolicyConfig)  # who would act
    control: ControlConfig = field(default_factory=ControlConfig)  # as in vla deploy
    port: str = ""  # serial port of a real arm or of its twin; stands for robot.port
    instruction: str = ""  # the words that would be given; a real arm needs some
    seed: int = 2_000_000  # of the first simulated scene
    looks: int = 6  # observations that the policy is asked about
    calls: int = 20  # answers that are timed

    def __post_init__(self) -> None:
        for name in ("looks", "calls"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")


class Level(Enum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"  # could not be checked, or good to know
    WARNING = "warning"  # likely to cost success; motion is not forbidden
    FORBIDS = "forbids"  # do not let the arm move


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    seen: str
    expected: str
    advice: str = ""  # what to do; empty when there is nothing to be done


def run(cfg: DoctorConfig, directory: Path) -> dict[str, Any]:
    """Checks, prints the table and returns the findings; exit status 1 when one of them forbids motion."""
    from vla.cli.doctor.checks import fit
    from vla.cli.doctor.policy import behaviour, load
    from vla.cli.doctor.robot import opened

    del directory
    if cfg.policy.kind is PolicyKind.CHECKPOINT:
        path = str(build.find_checkpoint(cfg.policy.path))
        cfg = replace(cfg, policy=replace(cfg.policy, path=path))
    if cfg.port:
        cfg = replace(cfg, robot=replace(cfg.robot, port=cfg.port))
    cfg = replace(cfg, control=cfg.robot.adapt(cfg.control))
    with opened(cfg) as (robot, findings):
        policy, trained = load(cfg, robot)
        findings += fit(cfg, policy, trained, robot)
        findings += behaviour(cfg, policy, trained, robot)
    levels = Counter(finding.level.value for finding in findings)
    may_move = Level.FORBIDS.value not in levels
    print(table(findings))
    print(f"\n{_verdict(findings)}")
    return {
        "may_move": may_move,
        "levels": dict(levels),
        "findings": [{**asdict(f), "level": f.level.value} for f in findings],
        **({} if may_move else {"status": "failed", "exit_code": 1}),
    }


def table(findings: list[Finding]) -> str:
    """Returns one block per finding: level, check, what was seen, what was expected, what to do."""
    columns = shutil.get_terminal_size((110, 24)).columns if not os.environ.get("COLUMNS") else 0
    width = max(60, min(columns or int(os.environ["COLUMNS"]), 120))
    name_width = max(len(finding.check) for finding in findings) + 2
    indent = " " * (9 + name_width)
    lines: list[str] = []
    for finding in findings:
        texts = [finding.seen]
        if finding.level not in (Level.OK, Level.NOTE):
            texts.append(f"expected: {finding.expected}")
        if finding.advice:
            texts.append(f"do: {finding.advice}")
        first, *rest = [row for text in texts for row in textwrap.wrap(text, width - len(indent))]
        level = (
            finding.level.value.upper() if finding.level is Level.FORBIDS else finding.level.value
        )
        lines.append(f"{level:<9}{finding.check:<{name_width}}{first}")
        lines += [indent + row for row in rest]
    return "\n".join(lines)


def _verdict(findings: list[Finding]) -> str:
    bad = [finding.check for finding in findings if finding.level is Level.FORBIDS]
    worrying = [finding.check for finding in findings if finding.level is Level.WARNING]
    if bad:
        return f"do not let it move yet: {', '.join(bad)}"
    if worrying:
        return f"nothing forbids motion; look at: {', '.join(worrying)}; then vla deploy --dry-run"
    return "nothing forbids motion; next: vla deploy --dry-run"
