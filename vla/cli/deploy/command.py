"""`vla deploy`: drives an arm in real time, and says how well the deadlines, limits and safety checks were kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from envs.config import EnvConfig
from policies.config import PolicyConfig, PolicyKind
from vla.cli import build
from vla.control.config import ControlConfig
from vla.control.policy_side import FaultConfig
from vla.errors import ConfigError
from vla.robots.config import RobotConfig, RobotKind
from vla.serving.page_config import PageConfig

logger = logging.getLogger(__name__)


class Time(Enum):
    """Which clock the run follows."""

    REAL = "real"  # two processes on the wall clock: the deadline report is about this machine
    SIMULATED = "simulated"  # one process, tick for tick, as fast as it goes; latency is a setting


@dataclass(kw_only=True)
class DeployConfig:
    """One run of a policy on a robot."""

    robot: RobotConfig = field(default_factory=RobotConfig)  # what is driven
    env: EnvConfig = field(
        default_factory=EnvConfig
    )  # what stands on the table of a simulated robot
    policy: PolicyConfig = field(default_factory=PolicyConfig)  # who acts
    control: ControlConfig = field(default_factory=ControlConfig)  # servo rate, scheduling, safety
    faults: FaultConfig = field(default_factory=FaultConfig)  # trouble to inject
    port: str = ""  # serial port of a real arm or of its twin; stands for robot.port
    seconds: float = 60.0  # how long to drive; episodes follow one another until then
    seed: int = 2_000_000  # of the first episode; the next ones count on from it
    instruction: str = ""  # these words instead of the task's own
    episode_seconds: float | None = (
        None  # longest episode; null = twice what the task's steps take at the policy rate
    )
    time: Time = Time.REAL  # real: wall clock; simulated: one process, reproducible
    simulated_latency_ms: float = 40.0  # time from observation to chunk (time=simulated)
    dry_run: bool = False  # everything but the sending: the arm stays where it is (also --dry-run)
    view: bool = False  # show the drive on a live page while it goes on
    page: PageConfig = field(default_factory=PageConfig)  # where that page is (view=true)
    record: str = ""  # folder of a LeRobotDataset that the drive is added to, e.g. datasets/driven
    rerun: str = ""  # .rrd file for the rerun viewer; needs rerun-sdk
    save_video: bool = True  # film the drive afterwards: video.mp4
    # longest wait for the policy to be loaded and a real arm to be ready; LeRobot alone takes half a minute to load
    # on a weak computer
    start_timeout_s: float = 180.0
    policy_restarts: int = 0  # how often a policy process that has died is started again

    def __post_init__(self) -> None:
        for name in ("seconds", "start_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive; got {getattr(self, name)}")
        if self.episode_seconds is not None and self.episode_seconds <= 0:
            raise ConfigError(
                f"episode_seconds must be positive or null; got {self.episode_seconds}"
            )
        if self.policy_restarts < 0:
            raise ConfigError(f"policy_restarts must be 0 or more; got {self.policy_restarts}")
        if self.simulated_latency_ms < 0:
            raise ConfigError(
                f"simulated_latency_ms must be 0 or more; got {self.simulated_latency_ms}"
            )
        if self.time is Time.SIMULATED and self.robot.kind is not RobotKind.SIM:
            raise ConfigError("time=simulated needs robot=sim: a real arm has its own time")
        if self.time is Time.SIMULATED and self.has_onlooker:
            raise ConfigError(
                "view, record and rerun look on from a process of their own; use time=real"
            )
        if self.time is Time.SIMULATED and self.faults.kill_policy_at_s:
            raise ConfigError(
                "faults.kill_policy_at_s needs a policy process of its own; use time=real"
            )

    @property
    def has_onlooker(self) -> bool:
        """Whether anything besides the log is to be made of the drive."""
        return self.view or bool(self.record or self.rerun)


def run(cfg: DeployConfig, directory: Path) -> dict[str, Any]:
    """Drives, prints the report and returns the summary; exit status 1 when the policy process died."""
    from vla.cli.deploy import report

    if cfg.robot.kind is RobotKind.LEROBOT:
        from vla.cli.deploy.arm import for_hardware

        cfg = for_hardware(cfg)
    if (
        cfg.policy.kind is PolicyKind.CHECKPOINT
    ):  # a wrong path is found here, before processes start
        cfg = replace(
            cfg, policy=replace(cfg.policy, path=str(build.find_checkpoint(cfg.policy.path)))
        )
    if cfg.has_onlooker or cfg.dry_run:
        from vla.cli.deploy import onlooker

        cfg = onlooker.prepared(cfg)
    if cfg.control.disabled_checks:
        off = ", ".join(cfg.control.disabled_checks)
        logger.warning("safety checks turned off by control.disabled_checks: %s", off)
    if cfg.time is Time.SIMULATED:
        from vla.cli.deploy.workers import drive_simulated

        ended = drive_simulated(cfg, directory)
    else:
        from vla.cli.deploy.processes import drive

        ended = drive(cfg, directory)
    summary = report.summarize(cfg, ended, directory)
    print(report.table(summary))
    report.plot(summary, directory / "lateness.png")
    for box in ended.black_boxes:
        from vla.cli import black_box_plot

        black_box_plot.plot(box)
    if ended.error:
        logger.error("%s", ended.error)
        summary |= {"status": "failed", "error": ended.error, "exit_code": 1}
    elif ended.is_interrupted:
        summary |= {"status": "interrupted", "exit_code": 130}
    return summary
