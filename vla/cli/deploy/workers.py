"""What runs inside the two processes of a drive, and the same parts in one process on a simulated clock."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from policies.config import PolicyKind
from vla.cli.deploy.command import DeployConfig
from vla.control.black_box import BlackBox
from vla.control.board import Word
from vla.control.clock import Clock, MonotonicClock, SimulatedClock
from vla.control.feed import Feed, ShownLog, TickRing
from vla.control.limits import joint_limits
from vla.control.log import TickLog
from vla.control.loop import ControlLoop, build_scheduler
from vla.control.messages import Links, SharedLinks
from vla.control.policy_side import Lockstep, PolicySide
from vla.control.realtime import be_nice, enter_realtime, leave_realtime, split_cores
from vla.control.robot import JointRobot
from vla.errors import VlaError
from vla.robots.config import RobotKind
from vla.robots.dry import DryRobot
from vla.robots.sim import TABLETOP_PANDA, SimRobot
from vla.types import END_EFFECTOR_DELTA_7D

if TYPE_CHECKING:
    from vla.cli.deploy.arm import ArmPlayer
    from vla.cli.deploy.player import TabletopPlayer
    from vla.robots.driver import ArmLinks

TICKS_FILE = "ticks.npz"
_POLICY_NICENESS = 10
_POLL_S = 0.005


@dataclass(kw_only=True)
class Ended:
    """How a drive ended, apart from its tick log.

    Attributes:
        control: counts of the safety layer, holds, and what the operating system granted.
        policy: episodes and answer times.
        error: what went wrong, one line; empty when nothing did.
        is_interrupted: it was asked to stop early.
        stall_began_s: instant of an injected stall on the log's clock; 0 = none.
        black_boxes: files with the last seconds before a breach.
        memory: MB of each process over the drive (vla.control.memory).
        watch: what was recorded, shown and dropped.
        driver: what the process of a real arm's driver says at its end.
    """

    control: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    is_interrupted: bool = False
    stall_began_s: float = 0.0
    driver: dict[str, Any] = field(default_factory=dict)
    black_boxes: list[Path] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    watch: dict[str, Any] = field(default_factory=dict)


def build_links(cfg: DeployConfig) -> SharedLinks:
    """Returns new links in shared memory for the robot of `cfg`."""
    match cfg.robot.kind:
        case RobotKind.SIM:
            return SharedLinks(
                SimRobot.scene_layout(), SimRobot.snapshot_layout(), END_EFFECTOR_DELTA_7D
            )
        case RobotKind.LEROBOT:
            from vla.cli.deploy.arm import build_arm_links

            return build_arm_links(cfg)


def control_main(cfg: DeployConfig, shared: SharedLinks, pipe: Connection, directory: Path) -> None:
    """The control process: waits for the first scene, then keeps deadlines until the time is up. Imports no torch."""
    links = shared.links
    with reporting(pipe):
        is_abandoned = parent_is_gone()
        robot = _build_robot(cfg, shared, lambda: bool(links.board[Word.STOP]) or is_abandoned())
        feed = shared.feed.feed if shared.feed else None
        loop, log = _build_loop(cfg, links, MonotonicClock(), robot, feed)
        clock = MonotonicClock()
        while not loop.take_scene():
            if links.board[Word.STOP] or is_abandoned():
                return
            clock.sleep_until(clock.now() + _POLL_S)
        loop.warm_up()
        granted = enter_realtime(cfg.control.realtime)
        tell(pipe, "granted", granted.warning)
        try:
            loop.run(cfg.seconds, is_abandoned)
        finally:
            robot.close()
            leave_realtime()
            log.save(directory / TICKS_FILE)
        facts = {**_control_facts(loop, log), "realtime": asdict(granted)}
        tell(pipe, "facts", {**facts, "torch_loaded": "torch" in sys.modules})


def policy_main(cfg: DeployConfig, shared: SharedLinks, pipe: Connection, directory: Path) -> None:
    """The policy process: renders, infers and sends chunks at lower priority; films the drive when it is over."""
    links = shared.links
    with reporting(pipe):
        is_abandoned = parent_is_gone()
        _, cores = split_cores()
        be_nice(_POLICY_NICENESS, cores if cfg.control.realtime.pin_cores else None)
        player = _build_player(cfg, shared, num_threads=len(cores))
        side = PolicySide(player, links, cfg.faults, MonotonicClock())
        player.warm_up()
        side.start()
        side.run(is_abandoned)
        tell(pipe, "facts", _policy_facts(player, side, directory))
        if cfg.save_video and not is_abandoned():
            player.film(directory / "video.mp4")
        player.close()


def drive_simulated(cfg: DeployConfig, directory: Path) -> Ended:
    """Drives in this process on a simulated clock: the same settings give the same run."""
    links = Links.in_process(
        SimRobot.scene_layout(), SimRobot.snapshot_layout(), END_EFFECTOR_DELTA_7D
    )
    links.board[Word.POLICY_ALIVE] = 1
    clock = SimulatedClock()
    robot = _build_robot(cfg)
    feed = Feed(TickRing(robot.limits.num_joints))
    black_box = BlackBox(feed, robot.limits, directory)
    loop, log = _build_loop(cfg, links, clock, robot, feed)
    player = _build_player(cfg)
    side = PolicySide(player, links, cfg.faults, clock)
    try:
        side.start()
        loop.take_scene()
        lockstep = Lockstep(side, links, clock, 1e-3 * cfg.simulated_latency_ms)

        def after_tick() -> None:
            lockstep.after_tick()
            black_box.poll()

        loop.run(cfg.seconds, lambda: False, after_tick)
        black_box.finish()
        log.save(directory / TICKS_FILE)
        if cfg.save_video:
            player.film(directory / "video.mp4")
    finally:
        player.close()
    return Ended(
        control=_control_facts(loop, log),
        policy=_policy_facts(player, side, directory),
        stall_began_s=links.board[Word.STALL_BEGAN],
        black_boxes=black_box.files,
    )


def driver_main(cfg: DeployConfig, shared: SharedLinks, pipe: Connection, directory: Path) -> None:
    """The driver's process of a real arm: talks to its bus and cameras; parks it at the end."""
    from vla.cli.deploy.arm import drive_hardware

    links = shared.links
    with reporting(pipe):
        is_parked = drive_hardware(
            cfg,
            cast("ArmLinks", shared),
            is_stopping=lambda: bool(links.board[Word.STOP]),
            is_abandoned=parent_is_gone(),
            report=lambda fault: tell(pipe, "fault", fault),
        )
        tell(pipe, "facts", {"is_parked": is_parked})


def _build_loop(
    cfg: DeployConfig, links: Links, clock: Clock, robot: JointRobot, feed: Feed | None
) -> tuple[ControlLoop, TickLog]:
    control = cfg.control
    capacity = round((cfg.seconds + 3.0) * control.servo_hz)  # and some for coming to rest
    num_joints = robot.limits.num_joints
    log = ShownLog(capacity, num_joints, feed) if feed else TickLog(capacity, num_joints)
    scheduler = build_scheduler(control, cfg.policy.execute_steps or 0)
    loop = ControlLoop(
        robot=robot,
        config=control,
        scheduler=scheduler,
        workspace=cfg.robot.workspace(),
        links=links,
        clock=clock,
        log=log,
    )
    return loop, log


def _build_robot(
    cfg: DeployConfig,
    shared: SharedLinks | None = None,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> JointRobot:
    robot = _build_arm(cfg, shared, is_abandoned)
    return DryRobot(robot) if cfg.dry_run else robot


def _build_arm(
    cfg: DeployConfig, shared: SharedLinks | None, is_abandoned: Callable[[], bool]
) -> JointRobot:
    match cfg.robot.kind:
        case RobotKind.SIM:
            arm = replace(TABLETOP_PANDA, limits=joint_limits(cfg.robot.arm))
            margin = cfg.control.safety.position_margin_rad
            return SimRobot(arm, cfg.control.period_s, margin_rad=margin)
        case RobotKind.LEROBOT:
            from vla.cli.deploy.arm import build_driven_arm

            return build_driven_arm(cfg, cast("ArmLinks", shared), is_abandoned)


def _build_player(
    cfg: DeployConfig, shared: SharedLinks | None = None, num_threads: int | None = None
) -> TabletopPlayer | ArmPlayer:
    if num_threads and cfg.policy.kind is PolicyKind.CHECKPOINT:
        import torch

        torch.set_num_threads(num_threads)
    match cfg.robot.kind:
        case RobotKind.SIM:
            from vla.cli.deploy.player import TabletopPlayer

            return TabletopPlayer(cfg)
        case RobotKind.LEROBOT:
            from vla.cli.deploy.arm import ArmPlayer

            return ArmPlayer(cfg, cast("ArmLinks", shared))


def _control_facts(loop: ControlLoop, log: TickLog) -> dict[str, Any]:
    return {**log.hold_facts(), "safety": asdict(loop.safety.counts), "num_ticks": log.num_ticks}


def _policy_facts(
    player: TabletopPlayer | ArmPlayer, side: PolicySide, directory: Path
) -> dict[str, Any]:
    episodes = [asdict(episode) for episode in player.episodes]
    lines = "".join(json.dumps(episode) + "\n" for episode in episodes)
    (directory / "episodes.jsonl").write_text(lines, encoding="utf-8")
    return {"episodes": episodes, "answer_times_s": side.answer_times_s}


@contextmanager
def reporting(pipe: Connection) -> Iterator[None]:
    """Sends what goes wrong inside to the supervisor, and ends the process with status 1."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to act on
    try:
        yield
    except VlaError as error:
        tell(pipe, "refused", error)
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001
        tell(pipe, "crashed", f"{type(error).__name__}: {error}", traceback.format_exc())
        raise SystemExit(1) from None


def tell(pipe: Connection, *message: object) -> None:
    """Sends a message to the supervisor; one that is gone cannot be told."""
    with suppress(BrokenPipeError):
        pipe.send(message)


def parent_is_gone() -> Callable[[], bool]:
    parent = os.getppid()
    return lambda: os.getppid() != parent
