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
from typing import TYPE_CHECKING, Any

from policies.config import PolicyKind
from vla.cli.deploy import DeployConfig
from vla.control.board import Word
from vla.control.clock import Clock, MonotonicClock, SimulatedClock
from vla.control.limits import joint_limits
from vla.control.log import TickLog
from vla.control.loop import ControlLoop, build_scheduler
from vla.control.messages import Links, SharedLinks
from vla.control.policy_side import Lockstep, PolicySide
from vla.control.realtime import be_nice, enter_realtime, leave_realtime, split_cores
from vla.errors import VlaError
from vla.robots.config import RobotKind
from vla.robots.sim import TABLETOP_PANDA, SimRobot
from vla.types import END_EFFECTOR_DELTA_7D

if TYPE_CHECKING:
    from vla.cli.deploy_player import TabletopPlayer

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
    """

    control: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    is_interrupted: bool = False
    stall_began_s: float = 0.0


def build_links(cfg: DeployConfig) -> SharedLinks:
    """Returns new links in shared memory for the robot of `cfg`."""
    match cfg.robot.kind:
        case RobotKind.SIM:
            return SharedLinks(
                SimRobot.scene_layout(), SimRobot.snapshot_layout(), END_EFFECTOR_DELTA_7D
            )


def control_main(cfg: DeployConfig, shared: SharedLinks, pipe: Connection, directory: Path) -> None:
    """The control process: waits for the first scene, then keeps deadlines until the time is up. Imports no torch."""
    links = shared.links
    with _reporting(pipe):
        is_abandoned = _parent_is_gone()
        loop, log = _build_loop(cfg, links, MonotonicClock())
        clock = MonotonicClock()
        while not loop.take_scene():
            if links.board[Word.STOP] or is_abandoned():
                return
            clock.sleep_until(clock.now() + _POLL_S)
        loop.warm_up()
        granted = enter_realtime(cfg.control.realtime)
        _tell(pipe, "granted", granted.warning)
        try:
            loop.run(cfg.seconds, is_abandoned)
        finally:
            leave_realtime()
            log.save(directory / TICKS_FILE)
        facts = {**_control_facts(loop, log), "realtime": asdict(granted)}
        _tell(pipe, "facts", {**facts, "torch_loaded": "torch" in sys.modules})


def policy_main(cfg: DeployConfig, shared: SharedLinks, pipe: Connection, directory: Path) -> None:
    """The policy process: renders, infers and sends chunks at lower priority; films the drive when it is over."""
    links = shared.links
    with _reporting(pipe):
        is_abandoned = _parent_is_gone()
        _, cores = split_cores()
        be_nice(_POLICY_NICENESS, cores if cfg.control.realtime.pin_cores else None)
        player = _build_player(cfg, num_threads=len(cores))
        side = PolicySide(player, links, cfg.faults, MonotonicClock())
        player.warm_up()
        side.start()
        side.run(is_abandoned)
        _tell(pipe, "facts", _policy_facts(player, side, directory))
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
    loop, log = _build_loop(cfg, links, clock)
    player = _build_player(cfg)
    side = PolicySide(player, links, cfg.faults, clock)
    try:
        side.start()
        loop.take_scene()
        lockstep = Lockstep(side, links, clock, 1e-3 * cfg.simulated_latency_ms)
        loop.run(cfg.seconds, lambda: False, lockstep.after_tick)
        log.save(directory / TICKS_FILE)
        if cfg.save_video:
            player.film(directory / "video.mp4")
    finally:
        player.close()
    return Ended(
        control=_control_facts(loop, log),
        policy=_policy_facts(player, side, directory),
        stall_began_s=links.board[Word.STALL_BEGAN],
    )


def _build_loop(cfg: DeployConfig, links: Links, clock: Clock) -> tuple[ControlLoop, TickLog]:
    control = cfg.control
    robot = _build_robot(cfg)
    capacity = round((cfg.seconds + 3.0) * control.servo_hz)  # and some for coming to rest
    log = TickLog(capacity, robot.limits.num_joints)
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


def _build_robot(cfg: DeployConfig) -> SimRobot:
    match cfg.robot.kind:
        case RobotKind.SIM:
            arm = replace(TABLETOP_PANDA, limits=joint_limits(cfg.robot.arm))
            margin = cfg.control.safety.position_margin_rad
            return SimRobot(arm, cfg.control.period_s, margin_rad=margin)


def _build_player(cfg: DeployConfig, num_threads: int | None = None) -> TabletopPlayer:
    from vla.cli.deploy_player import TabletopPlayer

    if num_threads and cfg.policy.kind is PolicyKind.CHECKPOINT:
        import torch

        torch.set_num_threads(num_threads)
    return TabletopPlayer(cfg)


def _control_facts(loop: ControlLoop, log: TickLog) -> dict[str, Any]:
    return {**log.hold_facts(), "safety": asdict(loop.safety.counts), "num_ticks": log.num_ticks}


def _policy_facts(player: TabletopPlayer, side: PolicySide, directory: Path) -> dict[str, Any]:
    episodes = [asdict(episode) for episode in player.episodes]
    lines = "".join(json.dumps(episode) + "\n" for episode in episodes)
    (directory / "episodes.jsonl").write_text(lines, encoding="utf-8")
    return {"episodes": episodes, "answer_times_s": side.answer_times_s}


@contextmanager
def _reporting(pipe: Connection) -> Iterator[None]:
    """Sends what goes wrong inside to the supervisor, and ends the process with status 1."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to act on
    try:
        yield
    except VlaError as error:
        _tell(pipe, "refused", error)
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001
        _tell(pipe, "crashed", f"{type(error).__name__}: {error}", traceback.format_exc())
        raise SystemExit(1) from None


def _tell(pipe: Connection, *message: object) -> None:
    """Sends a message to the supervisor; one that is gone cannot be told."""
    with suppress(BrokenPipeError):
        pipe.send(message)


def _parent_is_gone() -> Callable[[], bool]:
    parent = os.getppid()
    return lambda: os.getppid() != parent
