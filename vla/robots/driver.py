"""An arm's driver in a process of its own, and the arm as the control process sees it.

The driver waits for its bus, decodes pictures and loads LeRobot and torch; the control loop can afford none of it.
Between them lie three channels in which the newest message counts: targets one way, joints and pictures the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla.control.channel import Field, Layout, Message, SharedChannel
from vla.control.messages import SharedLinks
from vla.control.robot import JointState
from vla.control.rotation import Vector
from vla.errors import RobotError
from vla.robots.arms import HardwareArm
from vla.robots.cameras import CameraAddress
from vla.robots.inverse_kinematics import InverseKinematicsConfig, LimitedKinematics
from vla.types import END_EFFECTOR_DELTA_7D, ActionSpec, ImageArray

_POLL_S = 0.001
_MAX_FAULT_BYTES = 300
_LONGEST_SILENCE_S = 3.0  # of the control process, after everybody was told to stop


class Wish(IntEnum):
    """What the control process wants of the arm."""

    FOLLOW = 0  # go to the target
    PARK = 1  # move to the rest pose, switch the motors off, end


class DrivenHardware(Protocol):
    """What `serve` needs of an arm; vla.robots.lerobot.LeRobotArm is one."""

    @property
    def fault(self) -> str: ...
    def reading(self) -> Any: ...
    def frames(self) -> dict[str, tuple[ImageArray, float]]: ...
    def command(self, target: NDArray[Any]) -> None: ...
    def close(self) -> None: ...


class ArmLinks(SharedLinks):
    """The links of a drive and the channels to the driver, in shared memory; picklable."""

    def __init__(
        self,
        num_joints: int,
        cameras: Sequence[CameraAddress],
        spec: ActionSpec = END_EFFECTOR_DELTA_7D,
    ) -> None:
        super().__init__({}, snapshot_layout(num_joints), spec)
        integer, joints = Field(dtype="int64"), Field((num_joints,))
        self.commands = SharedChannel({"target": Field((num_joints + 1,)), "wish": integer})
        self.states = SharedChannel(
            {
                "joints": joints,
                "velocity": joints,
                "gripper": Field(),
                "measured_at_s": Field(),
                "fault": Field((_MAX_FAULT_BYTES,), "uint8"),
            }
        )
        self.frames = SharedChannel(frames_layout(cameras))

    def close(self) -> None:
        super().close()
        for shared in (self.commands, self.states, self.frames):
            shared.close()

    def unlink(self) -> None:
        super().unlink()
        for shared in (self.commands, self.states, self.frames):
            shared.unlink()


def snapshot_layout(num_joints: int) -> Layout:
    """Returns what the policy's side learns of a real arm at each snapshot."""
    return {"joints": Field((num_joints,)), "gripper": Field(), "measured_at_s": Field()}


def frames_layout(cameras: Sequence[CameraAddress]) -> Layout:
    """Returns the fields of a round of pictures: each camera's newest, and when it was captured (0 = none yet)."""
    layout: dict[str, Field] = {"round": Field(dtype="int64")}
    for camera in cameras:
        layout[camera.name] = Field((camera.height, camera.width, 3), "uint8")
        layout[f"{camera.name}_captured_at_s"] = Field()
    return layout


class DrivenArm:
    """The arm as the control loop sees it (vla.control.robot.JointRobot): no call waits for the bus."""

    def __init__(
        self,
        arm: HardwareArm,
        links: ArmLinks,
        *,
        margin_rad: float,
        is_abandoned: Callable[[], bool],
        start_timeout_s: float,
        kinematics: InverseKinematicsConfig | None = None,
    ) -> None:
        self.limits = arm.limits
        self._arm, self._links = arm, links
        self._is_abandoned, self._start_timeout_s = is_abandoned, start_timeout_s
        self._kinematics = LimitedKinematics(
            arm.build_model(),
            arm.tool_site,
            arm.limits,
            duration_s=END_EFFECTOR_DELTA_7D.dt_s,
            margin_rad=margin_rad,
            config=kinematics,
        )
        self._state: JointState | None = None
        self._target: Vector | None = None

    def snapshot_layout(self) -> Layout:
        return snapshot_layout(self.limits.num_joints)

    def begin(self, scene: Message) -> Any:
        """Waits until the driver has the arm at its ready pose, and returns the kinematics."""
        deadline = time.monotonic() + self._start_timeout_s
        while self._state is None:
            self._take_state()
            if self._is_abandoned():
                raise RobotError("the drive ended before the arm was ready")
            if time.monotonic() > deadline:
                raise RobotError(
                    f"the arm was not ready within {self._start_timeout_s:g} s; give start_timeout_s=SECONDS"
                )
            time.sleep(_POLL_S)
        self._take_state()
        return self._kinematics

    def read(self, now_s: float) -> JointState:
        self._take_state()
        assert self._state is not None, "read() before begin()"
        return self._state

    def command(self, target: NDArray[Any]) -> None:
        """Sends (joints + 1,): joint targets in rad, then the gripper's opening."""
        self._target = np.array(target, dtype=np.float64)
        self._links.commands.channel.publish(target=self._target, wish=int(Wish.FOLLOW))

    def pass_time(self, periods: int) -> None:
        """Does nothing: a real arm's time passes by itself."""

    def snapshot(self) -> Mapping[str, Any]:
        assert self._state is not None, "snapshot() before begin()"
        state = self._state
        return {
            "joints": state.joints,
            "gripper": state.gripper,
            "measured_at_s": state.measured_at_s,
        }

    def hold(self) -> None:
        """Does nothing: the motors hold the last target by themselves."""

    def close(self) -> None:
        """Has the driver park the arm and switch it off; returns at once."""
        if self._state is not None:
            target = self._target
            if target is None:
                target = np.append(self._state.joints, self._state.gripper)
            self._links.commands.channel.publish(target=target, wish=int(Wish.PARK))

    def _take_state(self) -> None:
        message = self._links.states.channel.read_new()
        if message is None:
            return
        self._state = JointState(
            joints=message["joints"].copy(),
            velocity=message["velocity"].copy(),
            gripper=message.number("gripper"),
            measured_at_s=message.number("measured_at_s"),
            fault=message["fault"].tobytes().rstrip(b"\0").decode(errors="replace"),
        )


def serve(
    arm: DrivenHardware,
    links: ArmLinks,
    *,
    is_stopping: Callable[[], bool],
    is_abandoned: Callable[[], bool],
    report: Callable[[str], None],
) -> None:
    """Carries targets to a connected arm and readings back until it is to be parked; then parks it.

    Args:
        arm: connected.
        links: to the other processes.
        is_stopping: whether everybody was told to stop. Then the arm is parked once the control process says so, or
            has been silent for three seconds.
        is_abandoned: whether the process that started this one is gone; the arm is parked at once.
        report: takes every fault when it begins, and an empty text when it is over.
    """
    last_number, last_fault, last_round = -1, "", 0.0
    heard_s = time.monotonic()
    try:
        while not is_abandoned():
            message = links.commands.channel.read_new()
            now_s = time.monotonic()
            if message is not None:
                heard_s = now_s
                if message.integer("wish") == Wish.PARK:
                    return
                arm.command(message["target"])
            elif is_stopping() and now_s - heard_s > _LONGEST_SILENCE_S:
                return
            reading, fault = arm.reading(), arm.fault
            if reading.number != last_number or fault != last_fault:
                _publish_state(links, reading, fault)
                if bool(fault) != bool(last_fault):
                    report(fault)
                last_number, last_fault = reading.number, fault
            last_round = _publish_frames(links, arm.frames(), last_round)
            time.sleep(_POLL_S)
    finally:
        arm.close()


def _publish_state(links: ArmLinks, reading: Any, fault: str) -> None:
    text = fault.encode()[:_MAX_FAULT_BYTES]
    padded = np.zeros(_MAX_FAULT_BYTES, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    links.states.channel.publish(
        joints=reading.joints,
        velocity=reading.velocity,
        gripper=reading.gripper,
        measured_at_s=reading.measured_at_s,
        fault=padded,
    )


def _publish_frames(
    links: ArmLinks, frames: dict[str, tuple[ImageArray, float]], last: float
) -> float:
    """Publishes the pictures when one is newer than `last`; returns the newest time of capture."""
    newest = max((captured for _, captured in frames.values()), default=0.0)
    if newest <= last:
        return last
    channel = links.frames.channel
    fields: dict[str, Any] = {"round": 0}
    for name, field in channel.layout.items():
        if field.dtype != "uint8":
            continue
        image, captured_at_s = frames.get(name, (None, 0.0))
        if image is not None and image.shape != field.shape:
            raise RobotError(
                f"camera {name!r} gives pictures of {image.shape[1]} x {image.shape[0]}; "
                f"its address in robot.cameras says {field.shape[1]} x {field.shape[0]}"
            )
        fields[name] = 0 if image is None else image
        fields[f"{name}_captured_at_s"] = captured_at_s
    channel.publish(**fields)
    return newest
