"""A simulated arm that moves in real time: physics inside the control process, pictures wherever the policy is.

Rendering takes milliseconds, so the control process never does it. It sends the physics state of the instant of
capture, and the policy's side, which has the same model, puts it into its own copy and renders there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla.control.channel import Field, Layout, Message
from vla.control.kinematics import ArmKinematics
from vla.control.limits import PANDA, JointLimits
from vla.control.robot import JointState
from vla.control.rotation import Vector
from vla.errors import RobotError
from vla.types import END_EFFECTOR_DELTA_7D, ActionSpec, Observation

_MAX_MODEL_BYTES = 1 << 20
_MAX_STATE_WIDTH = 4096
_STATE = int(
    mujoco.mjtState.mjSTATE_INTEGRATION
)  # everything that the next physics step depends on


@dataclass(frozen=True, kw_only=True)
class SimulatedArm:
    """How a model calls the parts of its arm.

    Attributes:
        joints, servos: hinges and their position actuators, base first.
        finger_joints, finger_servos: slides of the gripper and their position actuators.
        finger_travel_m: slide position of the open gripper; 0 is closed.
        tool_site: site at the tool centre.
        rest_posture: rad, which of the many joint solutions is preferred.
        limits: of the joints.
    """

    joints: tuple[str, ...]
    servos: tuple[str, ...]
    finger_joints: tuple[str, ...]
    finger_servos: tuple[str, ...]
    finger_travel_m: float
    tool_site: str
    rest_posture: tuple[float, ...]
    limits: JointLimits


TABLETOP_PANDA = SimulatedArm(
    joints=tuple(f"joint{i}" for i in range(1, 8)),
    servos=tuple(f"servo{i}" for i in range(1, 8)),
    finger_joints=("finger_left", "finger_right"),
    finger_servos=("grip_left", "grip_right"),
    finger_travel_m=0.04,
    tool_site="tool",
    rest_posture=(
        0.0,
        -0.0331,
        0.0,
        -2.4767,
        0.0,
        2.4436,
        0.7854,
    ),  # tool down over the middle of the table
    limits=PANDA,
)


class SimRobot:
    """Any MuJoCo scene with such an arm as a robot (vla.control.robot.JointRobot and vla.types.Robot).

    `command` takes joint targets in rad and the gripper's opening. As in a real drive, the set point moves in a
    straight line from one command to the next, its velocity is fed forward so that the position servos do not
    trail behind, and a command that is not followed by another becomes a standing set point after one period.

    Simulated time keeps to the servo grid: in each period as many whole physics steps are done as have fallen
    due. At 100 Hz and steps of 4 ms these are 2, 3, 2, 3, ...: the step that policies were trained with stays.
    """

    action_spec: ActionSpec = END_EFFECTOR_DELTA_7D

    def __init__(
        self,
        arm: SimulatedArm,
        period_s: float,
        *,
        margin_rad: float = 0.02,
        see: Callable[[], Observation] | None = None,
    ) -> None:
        """Prepares a robot without a scene.

        Args:
            arm: names of its parts.
            period_s: servo period.
            margin_rad: how far inside the joint limits inverse kinematics stays.
            see: takes the pictures for `observe`; None where another process does.
        """
        self.limits = arm.limits
        self.camera_names: tuple[str, ...] = ()
        self._arm, self._period_s, self._margin_rad, self._see = arm, period_s, margin_rad, see
        self._model: Any = None
        self._data: Any = None
        self._kinematics: ArmKinematics | None = None
        self._state = np.zeros(_MAX_STATE_WIDTH)

    # ---- scenes ----------------------------------------------------------------------------------------------------

    @staticmethod
    def scene_layout() -> Layout:
        """Returns the fields of a scene: the compiled model and the state to start from (see `scene_fields`)."""
        return {
            "model": Field((_MAX_MODEL_BYTES,), "uint8"),
            "model_size": Field(dtype="int64"),
            **SimRobot.snapshot_layout(),
        }

    @staticmethod
    def snapshot_layout() -> Layout:
        """Returns the fields of a snapshot: the physics state (see `restore`)."""
        return {"physics": Field((_MAX_STATE_WIDTH,)), "physics_width": Field(dtype="int64")}

    def begin(self, scene: Message) -> ArmKinematics:
        """Takes over the model and its state; raises RobotError when the model lacks a part of the arm."""
        raw = scene["model"][: scene.integer("model_size")].tobytes()
        return self.load(
            mujoco.MjModel.from_binary_path("scene.mjb", {"scene.mjb": raw}), scene["physics"]
        )

    def load(self, model: Any, physics: Vector) -> ArmKinematics:
        """Takes over a model (mujoco.MjModel) and its physics state, and returns the arm's kinematics."""
        arm, low, high = self._arm, np.asarray(self.limits.low), np.asarray(self.limits.high)
        margin = self._margin_rad
        rest = np.asarray(arm.rest_posture)
        if self._kinematics is None or _shape(model) != _shape(self._model):
            # Each takes milliseconds: the arena of MjData is many megabytes.
            self._kinematics = ArmKinematics(
                model, arm.joints, arm.tool_site, low + margin, high - margin, rest
            )
            self._data = mujoco.MjData(model)
        self._model = model
        mujoco.mj_resetData(model, self._data)
        set_physics_state(model, self._data, physics[: _state_width(model)])
        joints, fingers = _ids(model, "JOINT", arm.joints), _ids(model, "JOINT", arm.finger_joints)
        self._servos = _ids(model, "ACTUATOR", arm.servos)
        self._finger_servos = _ids(model, "ACTUATOR", arm.finger_servos)
        self._qpos, self._dofs = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self._finger_qpos = model.jnt_qposadr[fingers]
        # A position servo with stiffness kp and damping kv follows a ramp kv / kp seconds behind.
        bias = model.actuator_biasprm[self._servos]
        self._lag_s: Vector = bias[:, 2] / bias[:, 1]
        self._periods = self._steps = 0
        self._from = self._to = np.array(self._data.qpos[self._qpos])
        self._kinematics.renew(model)
        return self._kinematics

    # ---- every tick ------------------------------------------------------------------------------------------------

    def read(self, now_s: float) -> JointState:
        data, arm = self._data, self._arm
        opening = float(data.qpos[self._finger_qpos].mean()) / arm.finger_travel_m
        return JointState(
            joints=data.qpos[self._qpos].copy(),
            velocity=data.qvel[self._dofs].copy(),
            gripper=min(1.0, max(0.0, opening)),
            measured_at_s=now_s,
            gripper_force_n=float(np.abs(data.actuator_force[self._finger_servos]).mean()),
        )

    def command(self, target: NDArray[Any]) -> None:
        """Sends (joints + 1,): joint targets in rad, then the gripper's opening (1 open, 0 closed)."""
        self._from, self._to = self._to, np.array(target[:-1], dtype=np.float64)
        self._data.ctrl[self._finger_servos] = self._arm.finger_travel_m * float(target[-1])

    def pass_time(self, periods: int) -> None:
        for _ in range(periods):
            self._periods += 1
            due = round(self._periods * self._period_s / self._model.opt.timestep) - self._steps
            self._steps += due
            lead = (self._to - self._from) * (self._lag_s / self._period_s)
            for step in range(1, due + 1):
                set_point = self._from + (self._to - self._from) * (step / due) + lead
                self._data.ctrl[self._servos] = np.clip(
                    set_point, self.limits.low, self.limits.high
                )
                mujoco.mj_step(self._model, self._data)
            self._from = self._to

    def snapshot(self) -> Mapping[str, Any]:
        width = _state_width(self._model)
        mujoco.mj_getState(self._model, self._data, self._state[:width], _STATE)
        return {"physics": self._state, "physics_width": width}

    def hold(self) -> None:
        if self._data is not None:
            self._from = self._to

    # ---- vla.types.Robot -------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Does nothing: a simulated arm is there once a scene is loaded."""

    def observe(self) -> Observation:
        """Returns pictures and proprioception of the present state, where this robot was given eyes."""
        if self._see is None:
            raise RobotError(
                "this simulated arm has no eyes of its own; pass see=... or look at its snapshots"
            )
        return self._see()

    def close(self) -> None:
        self._model = self._data = None


def scene_fields(model: Any, data: Any) -> dict[str, Any]:
    """Returns the fields of `SimRobot.scene_layout` for a model and its present state."""
    size = int(mujoco.mj_sizeModel(model))
    if size > _MAX_MODEL_BYTES or _state_width(model) > _MAX_STATE_WIDTH:
        raise RobotError(
            f"the scene takes {size} bytes and {_state_width(model)} state numbers; a simulated robot takes "
            f"{_MAX_MODEL_BYTES} and {_MAX_STATE_WIDTH}: use fewer or simpler bodies"
        )
    raw = np.zeros(_MAX_MODEL_BYTES, dtype=np.uint8)
    mujoco.mj_saveModel(model, None, raw[:size])
    state = physics_state(model, data)
    padded = np.zeros(_MAX_STATE_WIDTH)
    padded[: len(state)] = state
    return {"model": raw, "model_size": size, "physics": padded, "physics_width": len(state)}


def restore(model: Any, data: Any, snapshot: Message) -> None:
    """Puts the physics state of a snapshot into `data`, of the same model, with all that derives from it."""
    set_physics_state(model, data, snapshot["physics"][: snapshot.integer("physics_width")])


def physics_state(model: Any, data: Any) -> Vector:
    """Returns (width,) everything that the next physics step depends on."""
    state = np.zeros(_state_width(model))
    mujoco.mj_getState(model, data, state, _STATE)
    return state


def set_physics_state(model: Any, data: Any, state: Vector) -> None:
    """Puts a state of `physics_state` into `data` and computes what derives from it."""
    mujoco.mj_setState(model, data, state, _STATE)
    mujoco.mj_forward(model, data)


def _shape(model: Any) -> tuple[int, ...]:
    """Returns what the layout of mujoco.MjData depends on, for the models of one kind of scene."""
    names = (
        "nq",
        "nv",
        "nu",
        "na",
        "nbody",
        "njnt",
        "ngeom",
        "nsite",
        "ncam",
        "nlight",
        "ntendon",
        "nM",
    )
    sizes = (int(getattr(model, name)) for name in (*names, "nmocap", "nsensordata", "narena"))
    return (*sizes, int(mujoco.mj_sizeModel(model)))


def _state_width(model: Any) -> int:
    return int(mujoco.mj_stateSize(model, _STATE))


def _ids(model: Any, kind: str, names: tuple[str, ...]) -> list[int]:
    object_type = {"JOINT": mujoco.mjtObj.mjOBJ_JOINT, "ACTUATOR": mujoco.mjtObj.mjOBJ_ACTUATOR}[
        kind
    ]
    ids = [int(mujoco.mj_name2id(model, int(object_type), name)) for name in names]
    missing = [name for name, index in zip(names, ids, strict=True) if index < 0]
    if missing:
        raise RobotError(
            f"the model has no {kind.lower()} {', '.join(missing)}; give the names that its MJCF uses"
        )
    return ids
