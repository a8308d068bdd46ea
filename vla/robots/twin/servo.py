"""One STS3215: its registers, what survives without power, and what it answers.

Addresses and sizes are those of Feetech's STS/SMS memory table (the one that LeRobot's motors/feetech/tables.py gives).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vla.robots.twin.protocol import from_signed, to_signed

MODEL_NUMBER = 777
COUNTS_PER_TURN = 4096
BAUD_RATES = (
    1_000_000,
    500_000,
    250_000,
    128_000,
    115_200,
    57_600,
    38_400,
    19_200,
)  # by the value of BAUD_RATE
_TABLE_SIZE = 128
_FIRST_RAM_ADDRESS = 40


class Register(Enum):
    """A place in the table: address, bytes, and the bit of the sign where it has one."""

    FIRMWARE_MAJOR = (0, 1)
    FIRMWARE_MINOR = (1, 1)
    MODEL = (3, 2)
    ID = (5, 1)
    BAUD_RATE = (6, 1)
    RETURN_DELAY = (7, 1)
    RESPONSE_LEVEL = (8, 1)
    MIN_POSITION = (9, 2)
    MAX_POSITION = (11, 2)
    MAX_TEMPERATURE = (13, 1)
    MAX_VOLTAGE = (14, 1)
    MIN_VOLTAGE = (15, 1)
    MAX_TORQUE = (16, 2)
    PHASE = (18, 1)
    P_COEFFICIENT = (21, 1)
    D_COEFFICIENT = (22, 1)
    I_COEFFICIENT = (23, 1)
    CW_DEAD_ZONE = (26, 1)
    CCW_DEAD_ZONE = (27, 1)
    PROTECTION_CURRENT = (28, 2)
    ANGULAR_RESOLUTION = (30, 1)
    HOMING_OFFSET = (31, 2, 11)
    OPERATING_MODE = (33, 1)
    OVERLOAD_TORQUE = (36, 1)
    TORQUE_ENABLE = (40, 1)
    ACCELERATION = (41, 1)
    GOAL_POSITION = (42, 2, 15)
    GOAL_TIME = (44, 2)
    GOAL_VELOCITY = (46, 2, 15)
    TORQUE_LIMIT = (48, 2)
    LOCK = (55, 1)
    PRESENT_POSITION = (56, 2, 15)
    PRESENT_VELOCITY = (58, 2, 15)
    PRESENT_LOAD = (60, 2, 10)
    PRESENT_VOLTAGE = (62, 1)
    PRESENT_TEMPERATURE = (63, 1)
    STATUS = (65, 1)
    MOVING = (66, 1)
    PRESENT_CURRENT = (69, 2, 15)
    MAX_VELOCITY = (84, 1)
    MAX_ACCELERATION = (85, 1)

    @property
    def address(self) -> int:
        return self.value[0]

    @property
    def size(self) -> int:
        return self.value[1]

    @property
    def sign_bit(self) -> int | None:
        return self.value[2] if len(self.value) > 2 else None


# As delivered, where it is not 0. Units: 0.1 V, degrees C, 0.1 % of the stall torque, 50 counts/s, 100 counts/s^2.
_FACTORY = {
    Register.FIRMWARE_MAJOR: 3,
    Register.FIRMWARE_MINOR: 10,
    Register.MODEL: MODEL_NUMBER,
    Register.RETURN_DELAY: 250,
    Register.RESPONSE_LEVEL: 1,
    Register.MAX_POSITION: COUNTS_PER_TURN - 1,
    Register.MAX_TEMPERATURE: 70,
    Register.MAX_VOLTAGE: 140,
    Register.MIN_VOLTAGE: 40,
    Register.MAX_TORQUE: 1000,
    Register.PHASE: 0x1C,  # its angle feedback bit 0x10 is set, as on new motors
    Register.P_COEFFICIENT: 32,
    Register.D_COEFFICIENT: 32,
    Register.CW_DEAD_ZONE: 1,
    Register.CCW_DEAD_ZONE: 1,
    Register.PROTECTION_CURRENT: 500,
    Register.ANGULAR_RESOLUTION: 1,
    Register.OVERLOAD_TORQUE: 80,
    Register.MAX_VELOCITY: 62,
    Register.MAX_ACCELERATION: 254,
    Register.PRESENT_VOLTAGE: 121,
    Register.PRESENT_TEMPERATURE: 27,
}
_READ_ONLY = frozenset(range(5)) | frozenset(range(56, 80))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One motor's entry of LeRobot's calibration file, in counts."""

    id: int
    drive_mode: int = 0
    homing_offset: int = 0
    range_min: int = 0
    range_max: int = COUNTS_PER_TURN - 1


class Servo:
    """The memory of one motor: what is read, written and kept.

    Addresses below 40 are EEPROM: they are copied to RAM at power-up, and a write survives power-off only while the
    lock register is 0. At power-up torque is off and the goal is where the motor stands.
    """

    def __init__(self, calibration: Calibration, *, baud: int = BAUD_RATES[0]) -> None:
        self._kept = bytearray(_TABLE_SIZE)
        self._ram = bytearray(_TABLE_SIZE)
        for register, value in _FACTORY.items():
            self._store(self._kept, register, value)
        stored = {
            Register.ID: calibration.id,
            Register.BAUD_RATE: BAUD_RATES.index(baud),
            Register.HOMING_OFFSET: calibration.homing_offset,
            Register.MIN_POSITION: calibration.range_min,
            Register.MAX_POSITION: calibration.range_max,
        }
        for register, value in stored.items():
            self._store(self._kept, register, value)
        self._encoder = 0
        self._pending: tuple[int, bytes] | None = None
        self.version = 0  # counts writes: whoever caches registers sees when to look again
        self.power_up()

    @property
    def id(self) -> int:
        return self[Register.ID]

    @property
    def baud(self) -> int:
        return BAUD_RATES[min(self[Register.BAUD_RATE], len(BAUD_RATES) - 1)]

    @property
    def is_enabled(self) -> bool:
        return self[Register.TORQUE_ENABLE] == 1

    def __getitem__(self, register: Register) -> int:
        raw = int.from_bytes(
            self._ram[register.address : register.address + register.size], "little"
        )
        return raw if register.sign_bit is None else to_signed(raw, register.sign_bit)

    def __setitem__(self, register: Register, value: int) -> None:
        """Stores a number in RAM, as the motor itself does with its measurements."""
        self._store(self._ram, register, value)
        self.version += 1

    def power_up(self) -> None:
        """Starts as after power was switched on."""
        self._ram[:] = self._kept
        self[Register.TORQUE_LIMIT] = self[Register.MAX_TORQUE]
        self._pending = None
        self.place(self._encoder)
        self[Register.GOAL_POSITION] = self[Register.PRESENT_POSITION]

    def place(self, encoder: int) -> None:
        """Sets what the magnetic encoder sees, 0 to 4095 counts; the reading is less by the homing offset."""
        self._encoder = encoder
        self._store(self._ram, Register.PRESENT_POSITION, encoder - self[Register.HOMING_OFFSET])

    def read(self, address: int, size: int) -> bytes:
        """Returns what a read instruction gets; beyond the table there are zeros."""
        return bytes(self._ram[address : address + size]).ljust(size, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Carries out a write instruction; read-only bytes stay as they are."""
        is_locked = self[Register.LOCK] != 0
        for place, value in enumerate(data, start=address):
            if place in _READ_ONLY or place >= _TABLE_SIZE:
                continue
            self._ram[place] = value
            if place < _FIRST_RAM_ADDRESS and not is_locked:
                self._kept[place] = value
        self.version += 1
        self.place(self._encoder)  # the homing offset may have changed
        offset = Register.TORQUE_ENABLE.address - address
        if 0 <= offset < len(data) and data[offset] == 128:  # "the present position is the middle"
            self._recentre()

    def register_write(self, address: int, data: bytes) -> None:
        """Keeps a write for the next action instruction."""
        self._pending = (address, data)

    def act(self) -> None:
        if self._pending is not None:
            self.write(*self._pending)
        self._pending = None

    def _recentre(self) -> None:
        self[Register.HOMING_OFFSET] = self._encoder - COUNTS_PER_TURN // 2
        self._kept[31:33] = self._ram[31:33]
        self[Register.TORQUE_ENABLE] = 0
        self.place(self._encoder)

    @staticmethod
    def _store(table: bytearray, register: Register, value: int) -> None:
        raw = value if register.sign_bit is None else from_signed(value, register.sign_bit)
        table[register.address : register.address + register.size] = raw.to_bytes(
            register.size, "little"
        )
