"""A real arm in a drive: the process of its driver, and the policy's side that looks through its cameras."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.config import PolicyKind
from vla.cli import build
from vla.cli.deploy.command import DeployConfig
from vla.cli.deploy.player import EpisodeRecord, check_action_space
from vla.cli.deploy.reach import ReachTask
from vla.control.channel import Message
from vla.control.limits import STRAIGHT_DOWN
from vla.control.rotation import to_rpy
from vla.errors import ConfigError
from vla.robots.arms import hardware_arm
from vla.robots.cameras import parse_camera
from vla.robots.driver import ArmLinks, DrivenArm, serve
from vla.robots.inverse_kinematics import LimitedKinematics
from vla.types import END_EFFECTOR_DELTA_7D, ActionChunk, ImageArray, Observation, Policy

logger = logging.getLogger(__name__)


def build_arm_links(cfg: DeployConfig) -> ArmLinks:
    """Returns new links in shared memory for the arm of `cfg`."""
    arm = hardware_arm(cfg.robot.arm)
    return ArmLinks(arm.limits.num_joints, [parse_camera(text) for text in cfg.robot.cameras])


def build_driven_arm(
    cfg: DeployConfig, links: ArmLinks, is_abandoned: Callable[[], bool]
) -> DrivenArm:
    """Returns the arm as the control process sees it."""
    return DrivenArm(
        hardware_arm(cfg.robot.arm),
        links,
        margin_rad=cfg.control.safety.position_margin_rad,
        is_abandoned=is_abandoned,
        start_timeout_s=cfg.start_timeout_s,
        kinematics=cfg.robot.kinematics,
    )


def drive_hardware(
    cfg: DeployConfig,
    links: ArmLinks,
    *,
    is_stopping: Callable[[], bool],
    is_abandoned: Callable[[], bool],
    report: Callable[[str], None],
) -> bool:
    """Connects the arm, carries targets and readings, and returns whether it was parked at the end."""
    from vla.robots.lerobot import LeRobotArm
    from vla.robots.lerobot_checks import hurry
    from vla.robots.lerobot_look import LookOnlyArm

    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # only the end of the drive ends it: the arm has to be parked
    arm = LookOnlyArm(cfg.robot) if cfg.dry_run else LeRobotArm(cfg.robot)
    try:
        arm.connect()
    except BaseException:
        arm.close()
        raise
    with hurry():
        serve(arm, links, is_stopping=is_stopping, is_abandoned=is_abandoned, report=report)
    return arm.is_parked


class ArmPlayer:
    """A policy that sees a real arm (vla.control.policy_side.Player).

    There is one scene, as it lies before the arm, and nobody to judge it: the drive is one episode. With
    `policy=expert` the task is to reach points, one after the other, and each is an episode of its own.
    """

    def __init__(self, cfg: DeployConfig, links: ArmLinks) -> None:
        self._cfg, self._frames = cfg, links.frames.channel
        self._arm = hardware_arm(cfg.robot.arm)
        self._reach = ReachTask() if cfg.policy.kind is PolicyKind.EXPERT else None
        self._policy: Policy = self._reach or build.build_policy(cfg.policy)
        check_action_space(self._policy)
        self._sizes = {camera.name: camera for camera in map(parse_camera, cfg.robot.cameras)}
        unknown = sorted(set(self._policy.camera_names) - set(self._sizes))
        if unknown:
            raise ConfigError(
                f"the policy looks through {', '.join(unknown)}; robot.cameras has {', '.join(self._sizes) or 'none'}"
            )
        self._kinematics = LimitedKinematics(
            self._arm.build_model(),
            self._arm.tool_site,
            self._arm.limits,
            duration_s=END_EFFECTOR_DELTA_7D.dt_s,
        )
        self._images: dict[str, ImageArray] = {}
        self._seen_at_s = 0.0
        self._next_seed = cfg.seed
        self._began_s = 0.0
        self.episodes: list[EpisodeRecord] = []

    def warm_up(self) -> None:
        """Lets the policy act once: the first inference of a process allocates and compiles."""
        images = {
            name: np.zeros((camera.height, camera.width, 3), np.uint8)
            for name, camera in self._sizes.items()
        }
        state = np.zeros(7, np.float32)
        self._policy.reset(seed=self._cfg.seed)
        self._policy.act(
            Observation(images=images, state=state, instruction=self._cfg.instruction or "reach")
        )

    def begin_episode(self) -> Mapping[str, Any]:
        self._begin_task(0.0)
        return {}

    def observe(self, snapshot: Message) -> Observation:
        joints, measured_at_s = snapshot["joints"].copy(), snapshot.number("measured_at_s")
        pose = self._kinematics.pose(joints)
        self._take_frames()
        if self._reach is not None:
            outcome = self._reach.judge(pose.position, measured_at_s)
            self._note(outcome, measured_at_s)
        opening = snapshot.number("gripper")
        rpy = to_rpy(pose.rotation @ STRAIGHT_DOWN.T)
        state = [*pose.position, *rpy, opening * self._arm.open_grip_width_m]
        seen_at_s = min(measured_at_s, self._seen_at_s) if self._images else measured_at_s
        return Observation(
            images=self._images,
            state=np.array(state, np.float32),
            instruction=self._cfg.instruction,
            captured_at_s=seen_at_s,
        )

    def outcome(self) -> str:
        return ""  # the scene is never set up anew by software

    def act(self, observation: Observation) -> ActionChunk:
        return self._policy.act(observation)

    def film(self, path: Path) -> None:
        """Does nothing: what the cameras saw is not kept here."""

    def close(self) -> None:
        """Does nothing: it owns no renderer."""

    def _take_frames(self) -> None:
        message = self._frames.read_new()
        if message is None:
            return
        self._images = {name: message[name].copy() for name in self._sizes}
        self._seen_at_s = min(
            (message.number(f"{name}_captured_at_s") for name in self._sizes), default=0.0
        )

    def _begin_task(self, now_s: float) -> None:
        seed, self._began_s = self._next_seed, now_s
        self._next_seed += 1
        self._policy.reset(seed=seed)
        task = "reach" if self._reach is not None else self._cfg.robot.arm
        self.episodes.append(EpisodeRecord(seed, task, self._cfg.instruction))

    def _note(self, outcome: str, now_s: float) -> None:
        record = self.episodes[-1]
        self._began_s = self._began_s or now_s
        record.outcome, record.seconds = outcome, now_s - self._began_s
        if outcome:
            self._begin_task(now_s)


def for_hardware(cfg: DeployConfig) -> DeployConfig:
    """Returns the settings with the port and what the arm needs; raises ConfigError when the port is not there."""
    robot = replace(cfg.robot, port=cfg.port or cfg.robot.port)
    control = robot.adapt(cfg.control)
    if control.servo_hz != cfg.control.servo_hz:
        logger.info(
            "control.servo_hz is %g: more than that this arm's bus does not take", control.servo_hz
        )
    if not robot.port:
        raise ConfigError("no port given; add port=PATH, e.g. port=/dev/ttyACM0")
    if not os.path.exists(robot.port):
        raise ConfigError(
            f"there is no port {robot.port}; is the arm plugged in, or `vla twin` running?"
        )
    return replace(cfg, robot=robot, control=control, save_video=False)
