"""The bus that the servos hang on: who answers what, and what can go wrong on the line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vla.errors import ConfigError
from vla.robots.twin.protocol import BROADCAST_ID, Instruction, Packet
from vla.robots.twin.servo import Register, Servo


@dataclass(kw_only=True)
class LineFaults:
    """What goes wrong on the line. Times and counts begin with the first command for a position."""

    corrupt_every: int = 0  # on average one packet in so many is damaged, either way; 0 = none
    dies_at_s: float = 0.0  # the bus falls silent this long after the first command; 0 = never
    dies_for_s: float = 2.0  # how long it stays silent
    loses_power: bool = False  # the motors lose power as well while it is silent: the arm drops
    seed: int = 0  # of the choice of damaged packets

    def __post_init__(self) -> None:
        for name in ("corrupt_every", "dies_at_s", "dies_for_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"faults.{name} must be 0 or more; got {getattr(self, name)}")
        if self.corrupt_every == 1:
            raise ConfigError("faults.corrupt_every=1 damages every packet; give 2 or more, or 0")


@dataclass
class LineCounts:
    """Packets that went over the line."""

    instructions: int = 0
    replies: int = 0
    damaged: int = 0
    sync_reads: int = 0
    sync_writes: int = 0


class ServoBus:
    """Servos on one half-duplex line. Knows no clock: times are given with every call."""

    def __init__(self, servos: Iterable[Servo], faults: LineFaults | None = None) -> None:
        self.servos = list(servos)
        self.counts = LineCounts()
        self._faults = faults or LineFaults()
        self._rng = np.random.default_rng(self._faults.seed)
        self._first_command_s: float | None = None
        self._was_dead = False

    def is_dead(self, now_s: float) -> bool:
        """Returns whether the line is silent; switches the motors' power with it where faults say so."""
        faults, began_s = self._faults, self._first_command_s
        is_dead = (
            began_s is not None
            and faults.dies_at_s > 0
            and faults.dies_at_s <= now_s - began_s < faults.dies_at_s + faults.dies_for_s
        )
        if is_dead and not self._was_dead and faults.loses_power:
            for servo in self.servos:
                servo[Register.TORQUE_ENABLE] = 0
        if self._was_dead and not is_dead and faults.loses_power:
            for servo in self.servos:
                servo.power_up()
        self._was_dead = is_dead
        return is_dead

    def handle(self, packet: Packet, baud: int, now_s: float) -> list[bytes]:
        """Returns the replies to one instruction at this line speed, each as its bytes on the wire."""
        self.counts.instructions += 1
        if self.is_dead(now_s) or self._is_damaged():
            return []
        listeners = {servo.id: servo for servo in self.servos if servo.baud == baud}
        replies = [reply.encode() for reply in self._answer(packet, listeners)]
        if packet.code == Instruction.SYNC_WRITE and self._first_command_s is None:
            is_goal = packet.parameters[:1] == bytes((Register.GOAL_POSITION.address,))
            self._first_command_s = now_s if is_goal else None
        self.counts.replies += len(replies)
        return [self._damage(reply) if self._is_damaged() else reply for reply in replies]

    def _answer(self, packet: Packet, listeners: dict[int, Servo]) -> list[Packet]:
        match packet.code:
            case Instruction.SYNC_READ:
                self.counts.sync_reads += 1
                return _sync_read(packet.parameters, listeners)
            case Instruction.SYNC_WRITE:
                self.counts.sync_writes += 1
                _sync_write(packet.parameters, listeners)
                return []
            case Instruction.PING if packet.servo_id == BROADCAST_ID:
                return [Packet(servo_id, 0) for servo_id in sorted(listeners)]
            case _:
                pass
        is_for_all = packet.servo_id == BROADCAST_ID
        addressed = list(listeners.values()) if is_for_all else [listeners.get(packet.servo_id)]
        # The answer to a new id still comes from the old one.
        replies = [_single(packet, servo) for servo in addressed if servo is not None]
        return [] if is_for_all else [reply for reply in replies if reply is not None]

    def _is_damaged(self) -> bool:
        every = self._faults.corrupt_every
        if not every or self._first_command_s is None or self._rng.integers(every) != 0:
            return False
        self.counts.damaged += 1
        return True

    def _damage(self, packet: bytes) -> bytes:
        """Returns the packet with one bit of one byte turned over."""
        damaged = bytearray(packet)
        damaged[int(self._rng.integers(len(packet)))] ^= 1 << int(self._rng.integers(8))
        return bytes(damaged)


def _single(packet: Packet, servo: Servo) -> Packet | None:
    reply_id, parameters = servo.id, b""
    match packet.code:
        case Instruction.PING:
            pass
        case Instruction.READ if len(packet.parameters) == 2:
            parameters = servo.read(*packet.parameters)
        case Instruction.WRITE if packet.parameters:
            servo.write(packet.parameters[0], packet.parameters[1:])
        case Instruction.REG_WRITE if packet.parameters:
            servo.register_write(packet.parameters[0], packet.parameters[1:])
        case Instruction.ACTION:
            servo.act()
        case _:
            return None
    return Packet(reply_id, 0, parameters)


def _sync_read(parameters: bytes, listeners: dict[int, Servo]) -> list[Packet]:
    if len(parameters) < 3:
        return []
    address, size = parameters[:2]
    asked = (servo_id for servo_id in parameters[2:] if servo_id in listeners)
    return [Packet(servo_id, 0, listeners[servo_id].read(address, size)) for servo_id in asked]


def _sync_write(parameters: bytes, listeners: dict[int, Servo]) -> None:
    if len(parameters) < 2:
        return
    address, size = parameters[:2]
    for start in range(2, len(parameters) - size, size + 1):
        servo = listeners.get(parameters[start])
        if servo is not None:
            servo.write(address, parameters[start + 1 : start + 1 + size])
