"""A drive's pictures for those who only look on: of a simulated table, drawn from snapshots, or of real cameras."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from vla.cli import build
from vla.cli.deploy.command import DeployConfig
from vla.control.channel import Message
from vla.control.limits import STRAIGHT_DOWN
from vla.control.rotation import to_rpy
from vla.robots.arms import hardware_arm
from vla.robots.cameras import parse_camera
from vla.robots.driver import ArmLinks
from vla.robots.inverse_kinematics import LimitedKinematics
from vla.robots.sim import restore
from vla.types import END_EFFECTOR_DELTA_7D, ImageArray, Observation


class Eyes(Protocol):
    """Looks at a drive through its snapshots."""

    cameras: dict[str, tuple[int, int]]  # name to (height, width)

    def begin(self, episode: int) -> str:
        """Gets ready for an episode, counted from 0, and returns its instruction."""
        ...

    def look(self, snapshot: Message) -> Observation | None:
        """Returns what was to be seen at the snapshot; None while there is no picture."""
        ...

    def outcome(self) -> str:
        """Returns how the episode has ended as of the last `look`; "" while it goes on or nobody can tell."""
        ...

    def close(self) -> None: ...


class TabletopEyes:
    """A copy of the simulated table that is put into the state of every snapshot."""

    def __init__(self, cfg: DeployConfig, image_size: int) -> None:
        self._env = build.build_env(replace(cfg.env, image_size=image_size))
        self._seed = cfg.seed
        self._options = {"instruction": cfg.instruction} if cfg.instruction else {}
        self.cameras = dict.fromkeys(cfg.env.cameras, (image_size, image_size))
        self._outcome = ""
        self.begin(0)  # the first reset and the first picture take most of a second
        self._env.observe()

    def begin(self, episode: int) -> str:
        _, info = self._env.reset(seed=self._seed + episode, options=self._options)
        self._outcome = ""
        return str(info["instruction"])

    def look(self, snapshot: Message) -> Observation | None:
        scene = self._env.scene
        restore(scene.model, scene.data, snapshot)
        self._outcome = self._outcome or str(self._env.task.judge(scene))
        seen = self._env.observe()
        return Observation(**seen, captured_at_s=snapshot.number("captured_at_s"))

    def outcome(self) -> str:
        return self._outcome

    def close(self) -> None:
        self._env.close()


class ArmEyes:
    """The newest pictures of a real arm's cameras, and its tool pose from its joints."""

    def __init__(self, cfg: DeployConfig, links: ArmLinks) -> None:
        self._arm = hardware_arm(cfg.robot.arm)
        self._frames, self._instruction = links.frames.channel, cfg.instruction
        self._kinematics = LimitedKinematics(
            self._arm.build_model(),
            self._arm.tool_site,
            self._arm.limits,
            duration_s=END_EFFECTOR_DELTA_7D.dt_s,
        )
        addresses = [parse_camera(text) for text in cfg.robot.cameras]
        self.cameras = {camera.name: (camera.height, camera.width) for camera in addresses}
        self._images: dict[str, ImageArray] = {}

    def begin(self, episode: int) -> str:
        del episode
        return self._instruction

    def look(self, snapshot: Message) -> Observation | None:
        message = self._frames.read_new()
        if message is not None:
            self._images = {name: message[name].copy() for name in self.cameras}
        if len(self._images) < len(self.cameras):
            return None
        pose = self._kinematics.pose(snapshot["joints"].copy())
        rpy = to_rpy(pose.rotation @ STRAIGHT_DOWN.T)
        width = snapshot.number("gripper") * self._arm.open_grip_width_m
        return Observation(
            images=self._images,
            state=np.array([*pose.position, *rpy, width], np.float32),
            instruction=self._instruction,
            captured_at_s=snapshot.number("captured_at_s"),
        )

    def outcome(self) -> str:
        return ""

    def close(self) -> None:
        """Does nothing: it owns no camera."""
