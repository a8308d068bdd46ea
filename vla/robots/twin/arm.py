"""The arm behind the bus: six position servos on a MuJoCo SO-101, moved on in real time."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla.robots import so101
from vla.robots.twin.servo import COUNTS_PER_TURN, Register, Servo

RAD_PER_COUNT = 2 * math.pi / COUNTS_PER_TURN
_NO_LOAD_SPEED = 4.71  # rad/s: 45 rpm, STS3215 data sheet at 7.4 V; the 12 V version is no faster
_STALL_CURRENT_A, _COUNT_A = 2.7, 0.0065  # data sheet at 12 V; one count of the current register
_LONGEST_CATCH_UP_S = 0.2  # after a pause of this process the arm goes on from where it was
_WARMING_K_PER_S, _COOLING_PER_S, _ROOM_C = 0.4, 0.005, 27.0  # at stall: 1 K in 2.5 s; our choice


class ServoArm:
    """Turns goal registers into torque on the hinges and hinge angles into present registers.

    Each motor holds its set point like a spring: `so101.SERVO_STIFFNESS` for the firmware's own P of 32, in proportion
    for others, within the torque limit, which falls to nothing at the no-load speed. The set point runs to the goal
    with the velocity and acceleration registers (0 = the motor's own limits). Damping and friction are those of the
    hinge; the D and I coefficients are stored but add nothing, since no published identification maps them.
    """

    def __init__(
        self,
        servos: Sequence[Servo],
        *,
        joints: Sequence[float] = so101.PARKED_JOINTS,
        opening: float = 0.0,
    ) -> None:
        """Places the arm.

        Args:
            servos: in the order of `so101.MOTORS`.
            joints: rad, where the five hinges stand when power comes on.
            opening: of the gripper, 1 open, 0 closed.
        """
        self.model = so101.build_model()
        self.data = mujoco.MjData(self.model)
        self.lock = threading.Lock()  # of `data`, for whoever draws it
        self.servos = list(servos)
        low, high = self.model.jnt_range[:, 0], self.model.jnt_range[:, 1]
        self._zero_counts, self._counts_per_rad = _scales(self.servos, low, high)
        self.data.qpos[:] = [*joints, low[-1] + opening * (high[-1] - low[-1])]
        mujoco.mj_forward(self.model, self.data)
        self._temperature = np.full(len(self.servos), _ROOM_C)
        self._load = np.zeros(len(self.servos))
        self._now_s: float | None = None
        self._versions: list[int] = []
        self._measure()
        for servo in self.servos:
            servo.power_up()
        self._set_point: NDArray[np.float64] = self.data.qpos.copy()
        self._speed: NDArray[np.float64] = np.zeros(len(self.servos))
        self._look_up()

    def advance(self, now_s: float) -> None:
        """Moves on to the instant `now_s`; the first call sets the clock."""
        step_s = float(self.model.opt.timestep)
        before_s = now_s if self._now_s is None else self._now_s
        if now_s - before_s > _LONGEST_CATCH_UP_S:
            before_s = now_s - step_s
        num_steps = int((now_s - before_s) / step_s)
        self._now_s = before_s + num_steps * step_s
        if num_steps == 0:
            return
        if self._versions != [servo.version for servo in self.servos]:
            self._look_up()
        with self.lock:
            for _ in range(num_steps):
                self._step(step_s)
        self._measure()
        self._versions = [servo.version for servo in self.servos]

    @property
    def tool_position(self) -> NDArray[np.float64]:
        """(3,) m, where the tool really is."""
        with self.lock:
            return self.data.site(so101.TOOL_SITE).xpos.copy()

    @property
    def joints(self) -> NDArray[np.float64]:
        """(6,) rad, where the hinges really are, the gripper last."""
        with self.lock:
            return self.data.qpos.copy()

    # ---- one physics step ------------------------------------------------------------------------------------------

    def _step(self, dt_s: float) -> None:
        data = self.data
        self._move_set_point(dt_s)
        stiffness_torque = self._stiffness * (self._set_point - data.qpos)
        stiffness_torque[np.abs(self._set_point - data.qpos) < self._dead_zone] = 0.0
        # A motor cannot push in the direction in which it already turns at its no-load speed.
        share_left = np.clip(1 - np.sign(stiffness_torque) * data.qvel / _NO_LOAD_SPEED, 0.0, 1.0)
        bound = self._max_torque * share_left
        torque = np.clip(stiffness_torque, -bound, bound)
        data.qfrc_applied[:] = torque
        mujoco.mj_step(self.model, data)
        self._load = torque / so101.MAX_TORQUE
        warming = _WARMING_K_PER_S * self._load**2 - _COOLING_PER_S * (self._temperature - _ROOM_C)
        self._temperature += dt_s * warming

    def _move_set_point(self, dt_s: float) -> None:
        """Moves the set points to their goals along a trapezoid of velocity; without torque they follow the arm."""
        way = self._goal - self._set_point
        # The fastest from which the set point can still stop at the goal, in whole steps.
        step = self._max_acceleration * dt_s
        stopping = np.sqrt(2 * self._max_acceleration * np.abs(way) + 0.25 * step**2) - 0.5 * step
        wanted = np.sign(way) * np.minimum(stopping, self._max_speed)
        self._speed = np.clip(wanted, self._speed - step, self._speed + step)
        moved = self._set_point + self._speed * dt_s
        has_arrived = (np.abs(way) <= np.abs(self._speed) * dt_s) & (way * self._speed >= 0)
        self._set_point = np.where(has_arrived, self._goal, moved)
        is_loose = ~self._is_enabled
        self._set_point[is_loose] = self.data.qpos[is_loose]
        self._speed[is_loose | has_arrived] = 0.0

    # ---- registers -------------------------------------------------------------------------------------------------

    def _look_up(self) -> None:
        """Takes over what was written to the registers."""

        def column(register: Register) -> NDArray[np.float64]:
            return np.array([servo[register] for servo in self.servos], dtype=np.float64)

        low, high = column(Register.MIN_POSITION), column(Register.MAX_POSITION)
        goal = np.clip(column(Register.GOAL_POSITION), low, high)
        self._goal: NDArray[np.float64] = (goal - self._zero_counts) / self._counts_per_rad
        self._is_enabled = column(Register.TORQUE_ENABLE) == 1
        self._stiffness = so101.SERVO_STIFFNESS * column(Register.P_COEFFICIENT) / 32.0
        self._max_torque = (
            so101.MAX_TORQUE * self._is_enabled * column(Register.TORQUE_LIMIT) / 1000.0
        )
        self._dead_zone = RAD_PER_COUNT * column(Register.CW_DEAD_ZONE)
        own_speed = 50.0 * column(Register.MAX_VELOCITY) * RAD_PER_COUNT
        asked_speed = np.abs(column(Register.GOAL_VELOCITY)) * RAD_PER_COUNT
        self._max_speed = np.where(asked_speed > 0, np.minimum(asked_speed, own_speed), own_speed)
        own = column(Register.MAX_ACCELERATION)
        asked = np.where(column(Register.ACCELERATION) > 0, column(Register.ACCELERATION), own)
        self._max_acceleration = 100.0 * np.maximum(np.minimum(asked, own), 1.0) * RAD_PER_COUNT

    def _measure(self) -> None:
        """Writes what the motors measure into their registers."""
        counts = self._zero_counts + self.data.qpos * self._counts_per_rad
        velocity = self.data.qvel * self._counts_per_rad
        for index, servo in enumerate(self.servos):
            reading = round(float(counts[index]))
            servo.place(reading + servo[Register.HOMING_OFFSET])
            servo[Register.PRESENT_VELOCITY] = round(float(velocity[index]))
            load = float(self._load[index])
            servo[Register.PRESENT_LOAD] = round(1000 * load)
            servo[Register.PRESENT_CURRENT] = round(abs(load) * _STALL_CURRENT_A / _COUNT_A)
            servo[Register.PRESENT_TEMPERATURE] = round(float(self._temperature[index]))
            servo[Register.PRESENT_VOLTAGE] = 121 - round(4 * abs(load))
            servo[Register.MOVING] = int(abs(float(velocity[index])) > 10)


def _scales(
    servos: Sequence[Servo], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns per motor the reading at 0 rad and the counts per rad, as the calibration says the arm was built.

    A hinge's zero is the middle of its calibrated range and it turns 4096 counts per turn. The gripper has no angle in
    LeRobot: its range of counts is the jaw's range.
    """
    first = np.array([servo[Register.MIN_POSITION] for servo in servos], dtype=np.float64)
    last = np.array([servo[Register.MAX_POSITION] for servo in servos], dtype=np.float64)
    per_rad = np.full(len(servos), 1.0 / RAD_PER_COUNT)
    zero = (first + last) / 2
    per_rad[-1] = (last[-1] - first[-1]) / (high[-1] - low[-1])
    zero[-1] = first[-1] - low[-1] * per_rad[-1]
    return zero, per_rad
