"""The robot's side of `vla doctor`: what is there, what its cameras show, and where its joints stand. Nothing moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vla.cli import build
from vla.cli.doctor.command import DoctorConfig, Finding, Level
from vla.control.limits import STRAIGHT_DOWN, JointLimits, joint_limits
from vla.control.rotation import Vector, to_rpy
from vla.errors import ConfigError, RobotError
from vla.robots.arms import hardware_arm
from vla.robots.cameras import parse_camera
from vla.robots.config import RobotKind
from vla.types import END_EFFECTOR_DELTA_7D, TABLETOP, ActionSpec, Observation, StateSpec

if TYPE_CHECKING:
    from vla.cli.doctor.policy import Trained

_LONGEST_LOOK_S = 5.0
_OTHER_WORDS = "open the drawer"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One observation, other words for the same scene, and where the joints stood."""

    observation: Observation
    other_instruction: str
    joints: Vector


@dataclass(kw_only=True)
class SeenRobot:
    """A robot as far as it can be known without moving it.

    Attributes:
        cameras: name to (height, width); None: drawn at whatever size the policy wants.
        camera_hz: pictures a second, None where they are drawn on demand.
        kinematics: has `pose(joints)` and `solve(joints, goal)`; None where the arm could not be reached.
    """

    is_real: bool
    limits: JointLimits
    cameras: dict[str, tuple[int, int] | None]
    camera_hz: dict[str, float] = field(default_factory=dict[str, float])
    action_spec: ActionSpec = END_EFFECTOR_DELTA_7D
    state_spec: StateSpec = TABLETOP.state_spec
    kinematics: Any = None
    source: Any = None

    def looks(self, cfg: DoctorConfig, trained: Trained) -> list[Look]:
        """Returns observations as the policy would get them; empty where the arm could not be reached."""
        return [] if self.source is None else self.source.looks(self, cfg, trained)


@contextmanager
def opened(cfg: DoctorConfig) -> Iterator[tuple[SeenRobot, list[Finding]]]:
    """Yields the robot and what was found while reaching it; frees it in the end."""
    match cfg.robot.kind:
        case RobotKind.SIM:
            cameras = dict.fromkeys(cfg.env.cameras)
            source = _Tabletop()
            seen = "a simulated arm needs none"
            note = Finding(
                check="calibration", level=Level.OK, seen=seen, expected="none", advice=""
            )
            limits = joint_limits(cfg.robot.arm)
            yield SeenRobot(is_real=False, limits=limits, cameras=cameras, source=source), [note]
            source.close()
        case RobotKind.LEROBOT:
            with _reached(cfg) as reached:
                yield reached


class _Tabletop:
    """Scenes of the simulated table, drawn at the policy's size."""

    def __init__(self) -> None:
        self._env: Any = None

    def looks(self, robot: SeenRobot, cfg: DoctorConfig, trained: Trained) -> list[Look]:
        from vla.robots.sim import TABLETOP_PANDA, SimRobot, physics_state

        size = trained.image_size or cfg.env.image_size
        self._env = build.build_env(replace(cfg.env, image_size=size))
        arm = SimRobot(replace(TABLETOP_PANDA, limits=robot.limits), cfg.control.period_s)
        looks: list[Look] = []
        for seed in range(cfg.seed, cfg.seed + cfg.looks):
            other = self._other_words(seed)
            raw, _ = self._env.reset(seed=seed)
            scene = self._env.scene
            robot.kinematics = arm.load(scene.model, physics_state(scene.model, scene.data))
            observation = Observation(
                **{**raw, "instruction": cfg.instruction or raw["instruction"]}
            )
            looks.append(
                Look(observation=observation, other_instruction=other, joints=arm.read(0.0).joints)
            )
        return looks

    def close(self) -> None:
        if self._env is not None:
            self._env.close()

    def _other_words(self, seed: int) -> str:
        try:
            raw, _ = self._env.reset(seed=seed, options={"swap_instruction": True})
        except ConfigError:  # nothing else to name in this task
            return _OTHER_WORDS
        return str(raw["instruction"])


@contextmanager
def _reached(cfg: DoctorConfig) -> Iterator[tuple[SeenRobot, list[Finding]]]:
    """Yields a real arm that was reached, with its motors left as they are, or one that was not."""
    from vla.robots.lerobot_look import LookOnlyArm

    arm = hardware_arm(cfg.robot.arm)
    addresses = [parse_camera(text) for text in cfg.robot.cameras]
    robot = SeenRobot(
        is_real=True,
        limits=arm.limits,
        cameras={camera.name: (camera.height, camera.width) for camera in addresses},
        camera_hz={camera.name: camera.fps for camera in addresses},
    )
    driver = LookOnlyArm(cfg.robot)
    try:
        driver.connect()
    except RobotError as error:
        problem, _, advice = str(error).partition("; ")
        finding = Finding(
            check="arm and calibration",
            level=Level.FORBIDS,
            seen=problem,
            expected="an arm that answers, with a calibration file that matches its motors",
            advice=advice or "see the message",
        )
        driver.close()
        yield robot, [finding]
        return
    robot.source = _RealArm(driver, cfg)
    found = Finding(
        check="arm and calibration",
        level=Level.OK,
        seen=f"all motors of {cfg.robot.id} at {cfg.robot.port} answer and hold the calibration of its file",
        expected="the same",
    )
    try:
        yield robot, [found]
    finally:
        driver.close()


class _RealArm:
    """What a real arm's cameras show while it stands still."""

    def __init__(self, driver: Any, cfg: DoctorConfig) -> None:
        self._driver = driver
        self._arm = hardware_arm(cfg.robot.arm)

    def looks(self, robot: SeenRobot, cfg: DoctorConfig, trained: Trained) -> list[Look]:
        from vla.robots.inverse_kinematics import LimitedKinematics

        del trained
        robot.kinematics = LimitedKinematics(
            self._arm.build_model(),
            self._arm.tool_site,
            self._arm.limits,
            duration_s=robot.action_spec.dt_s,
        )
        self._await_pictures(set(robot.cameras))
        looks: list[Look] = []
        for _ in range(cfg.looks):
            raw = self._driver.observe()
            joints = np.asarray(raw.state[:-1], np.float64)
            pose = robot.kinematics.pose(joints)
            rpy = to_rpy(pose.rotation @ STRAIGHT_DOWN.T)
            width = float(raw.state[-1]) * self._arm.open_grip_width_m
            observation = Observation(
                images=raw.images,
                state=np.array([*pose.position, *rpy, width], np.float32),
                instruction=cfg.instruction or "pick up the cube",
            )
            looks.append(
                Look(observation=observation, other_instruction=_OTHER_WORDS, joints=joints)
            )
            time.sleep(0.1)
        return looks

    def _await_pictures(self, names: set[str]) -> None:
        deadline = time.monotonic() + _LONGEST_LOOK_S
        while time.monotonic() < deadline and set(self._driver.observe().images) < names:
            time.sleep(0.05)
