"""Feetech's packets (protocol 0, STS and SMS series): bytes to instructions, status to bytes.

    0xFF 0xFF id length instruction parameters ... checksum     length = parameters + 2
    0xFF 0xFF id length error       parameters ... checksum     checksum = ~(sum from id on), low byte

Numbers are little-endian; signed registers are sign and magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

BROADCAST_ID = 0xFE
_HEADER = b"\xff\xff"
_SHORTEST, _LONGEST = 6, 254


class Instruction(IntEnum):
    """What a packet asks for; numbers of the protocol manual."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


@dataclass(frozen=True)
class Packet:
    """One whole packet; `code` is the instruction on its way out and the error byte on its way back."""

    servo_id: int
    code: int
    parameters: bytes = b""

    def encode(self) -> bytes:
        body = bytes((self.servo_id, len(self.parameters) + 2, self.code)) + self.parameters
        return _HEADER + body + bytes((checksum(body),))


class Decoder:
    """Finds packets in a stream of bytes; what is not a packet, or has a wrong checksum, is passed over."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.num_corrupt = 0

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yields the packets that are complete with `data`."""
        self._bytes += data
        while (start := self._bytes.find(_HEADER)) >= 0:
            del self._bytes[:start]
            while (
                len(self._bytes) > 2 and self._bytes[2] == 0xFF
            ):  # a third 0xFF is noise before the header
                del self._bytes[:1]
            if len(self._bytes) < 4:
                return
            length = self._bytes[3]
            if not 2 <= length <= _LONGEST:
                del self._bytes[:2]
                self.num_corrupt += 1
                continue
            if len(self._bytes) < length + 4:
                return
            packet = bytes(self._bytes[2 : length + 4])
            if checksum(packet[:-1]) != packet[-1]:
                del self._bytes[:2]
                self.num_corrupt += 1
                continue
            del self._bytes[: length + 4]
            yield Packet(packet[0], packet[2], packet[3:-1])

    def forget(self) -> None:
        """Drops a packet that was begun: the line was silent for longer than a packet lasts."""
        self._bytes.clear()


def checksum(body: bytes) -> int:
    """Returns the checksum of a packet's bytes from the id up to the last parameter."""
    return ~sum(body) & 0xFF


def to_signed(raw: int, sign_bit: int) -> int:
    """Returns the number that `raw` means, its sign in bit `sign_bit`."""
    magnitude = raw & ((1 << sign_bit) - 1)
    return -magnitude if raw >> sign_bit & 1 else magnitude


def from_signed(value: int, sign_bit: int) -> int:
    """Returns the raw register for `value`, its magnitude cut to what fits below the sign bit."""
    magnitude = min(abs(value), (1 << sign_bit) - 1)
    return magnitude | (1 << sign_bit) if value < 0 else magnitude
