"""A control loop on a simulated clock, with an arm that does exactly what it is told."""

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np
import pytest

from envs.arms import HOME_JOINTS, arm_only_xml
from vla.control.board import Word
from vla.control.clock import SimulatedClock, Tick
from vla.control.config import ControlConfig
from vla.control.kinematics import ArmKinematics
from vla.control.limits import PANDA, JointLimits, Workspace
from vla.control.log import Mode, TickLog
from vla.control.loop import ControlLoop, build_scheduler
from vla.control.messages import Links, chunk_fields
from vla.control.robot import JointState
from vla.types import END_EFFECTOR_DELTA_7D

BOX = Workspace(
    low=(0.26, -0.34, 0.012), high=(0.74, 0.34, 0.42), max_tilt_rad=0.4, max_yaw_rad=1.6
)


def make_kinematics() -> ArmKinematics:
    model = mujoco.MjModel.from_xml_string(arm_only_xml())
    low, high = np.asarray(PANDA.low) + 0.02, np.asarray(PANDA.high) - 0.02
    return ArmKinematics(model, PANDA.names, "tool", low, high, HOME_JOINTS)


class ObedientArm:
    """Stands exactly where the last command put it, plus `offset`; keeps every command."""

    limits: JointLimits = PANDA

    def __init__(self) -> None:
        self.joints = HOME_JOINTS.copy()
        self.offset = np.zeros(7)
        self.commands: list[np.ndarray] = []
        self.is_held = False
        self.kinematics = make_kinematics()

    def snapshot_layout(self) -> Mapping[str, Any]:
        return {}

    def begin(self, scene: Any) -> ArmKinematics:
        del scene
        self.joints = HOME_JOINTS.copy()
        return self.kinematics

    def read(self, now_s: float) -> JointState:
        return JointState(self.joints + self.offset, np.zeros(7), 1.0, now_s)

    def command(self, target: np.ndarray) -> None:
        self.commands.append(target.copy())
        self.joints = target[:-1].copy()

    def pass_time(self, periods: int) -> None:
        del periods

    def snapshot(self) -> Mapping[str, Any]:
        return {}

    def hold(self) -> None:
        self.is_held = True

    def close(self) -> None:
        pass


class Bench:
    """A loop, its arm and the policy's end of the links; `tick` lets servo periods go by."""

    def __init__(self, **settings: Any) -> None:
        self.config = ControlConfig(**settings)
        self.arm, self.clock, self.log = ObedientArm(), SimulatedClock(), TickLog(20_000, 7)
        self.links = Links.in_process({}, {}, END_EFFECTOR_DELTA_7D)
        self.links.board[Word.POLICY_ALIVE] = 1
        self.loop = ControlLoop(
            robot=self.arm,
            config=self.config,
            scheduler=build_scheduler(self.config),
            workspace=BOX,
            links=self.links,
            clock=self.clock,
            log=self.log,
        )
        self.index = 0
        self.snapshot = None
        self.begin_episode(0)
        self.loop.take_scene()

    def begin_episode(self, episode: int) -> None:
        self.links.scenes.publish(episode=episode)

    def tick(self, count: int = 1, skipped: int = 0) -> None:
        for _ in range(count):
            self.index += 1 + skipped
            deadline = self.index * self.config.period_s
            self.clock.sleep_until(deadline)
            self.loop.tick(Tick(self.index, deadline, 0.0, skipped))
            self.snapshot = self.links.snapshots.read_new() or self.snapshot

    def send(self, actions: Any) -> None:
        """Answers the newest snapshot; actions (steps, 7) or one action (7,)."""
        chunk = np.atleast_2d(np.asarray(actions, dtype=np.float32))
        self.links.chunks.publish(**chunk_fields(self.snapshot, chunk))

    @property
    def modes(self) -> list[Mode]:
        return [Mode(mode) for mode in self.log.rows()["mode"]]

    @property
    def tool(self) -> np.ndarray:
        return self.arm.kinematics.pose(self.arm.joints).position


@pytest.fixture(scope="session")
def make_bench() -> Callable[..., Bench]:
    return Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
