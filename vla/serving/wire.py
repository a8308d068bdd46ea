"""Messages as openpi's client speaks them: msgpack in which a numpy array is a map of four entries.

    {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}
    {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}

Source: openpi-client 0.1.2, msgpack_numpy.py, and the msgpack specification. Reading is strict: what a message claims
is compared with what it holds before anything is allocated, nothing in it can name code to run, and every array that
comes out is the reader's own, writable copy (openpi's are read-only views).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vla.errors import ServingError, unknown_name
from vla.serving.arrays import DTYPES, array_from_bytes, scalar_from_number, shown

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_MARKERS = (_ARRAY, _SCALAR, b"data", b"dtype", b"shape")


@dataclass(frozen=True, kw_only=True)
class WireLimits:
    """How large and how intricate a message may be; pictures count as one item each."""

    max_bytes: int = 8 << 20
    max_items: int = 20_000  # values of all kinds, nested ones included
    max_depth: int = 8  # maps and lists inside one another


DEFAULT_LIMITS = WireLimits()


def pack(value: Any) -> bytes:
    """Returns `value` (maps, lists, text, bytes, numbers, None, numpy arrays and scalars) as one message.

    Raises:
        ServingError: a value of another kind, or an array whose dtype is not in DTYPES.
    """
    parts: list[bytes] = []
    _write(value, parts, 0)
    return b"".join(parts)


def unpack(message: bytes, limits: WireLimits = DEFAULT_LIMITS) -> Any:
    """Returns what one message holds, with arrays as writable copies.

    Raises:
        ServingError: the message is truncated, malformed, over a limit, or holds a value that is not spoken here.
    """
    if len(message) > limits.max_bytes:
        raise ServingError(
            f"the message has {len(message)} bytes; at most {limits.max_bytes} are taken: send smaller pictures"
        )
    reader = _Reader(message, limits)
    value = reader.value(1)
    if reader.position != len(message):
        raise ServingError(
            f"the message goes on for {len(message) - reader.position} bytes after its end; send one map"
        )
    return value


# ---- reading -------------------------------------------------------------------------------------------------------


class _Reader:
    """One pass over a message; `position` is the next byte."""

    def __init__(self, message: bytes, limits: WireLimits) -> None:
        self._view = memoryview(message)
        self._limits = limits
        self._num_items = 0
        self.position = 0

    def read(self, depth: int) -> Any:
        self._count(1)
        code = self._take(1)[0]
        if code <= 0x7F:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code <= 0x8F:
            return self._map(code & 0x0F, depth)
        if code <= 0x9F:
            return self._list(code & 0x0F, depth)
        if code <= 0xBF:
            return self._text(code & 0x1F)
        if code not in _CODES:
            raise ServingError(
                f"byte 0x{code:02x} at {self.position - 1} starts no value that is spoken here; "
                "send msgpack of maps, lists, text, numbers and numpy arrays, without extension types"
            )
        return _CODES[code](self, depth)

    def number(self, code: str) -> Any:
        return struct.unpack(f">{code}", self._take(struct.calcsize(code)))[0]

    def data(self, length: int) -> memoryview[int]:
        return self._take(length)

    def _text(self, length: int) -> str:
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise ServingError("a text in the message is not UTF-8") from error

    def _list(self, length: int, depth: int) -> list[Any]:
        self._enter(length, depth)
        return [self.value(depth + 1) for _ in range(length)]

    def _map(self, length: int, depth: int) -> Any:
        self._enter(2 * length, depth)
        values: dict[Any, Any] = {}
        for _ in range(length):
            key = self.read(depth + 1)
            if isinstance(key, memoryview):
                key = bytes(cast("memoryview[int]", key)[:16])
            if not isinstance(key, str) and not (isinstance(key, bytes) and key in _MARKERS):
                raise ServingError(f"a key of a map must be text; got {shown(key)}")
            if key in values:
                raise ServingError(f"the key {shown(key)} comes twice in one map")
            values[key] = self.read(depth + 1)
        return _resolved(values)

    def value(self, depth: int) -> Any:
        """Returns the next value, bytes as a copy; `read` returns a view of the message for them."""
        value = self.read(depth)
        return bytes(cast("memoryview[int]", value)) if isinstance(value, memoryview) else value

    def _enter(self, length: int, depth: int) -> None:
        if depth > self._limits.max_depth:
            raise ServingError(
                f"the message nests deeper than {self._limits.max_depth} maps and lists"
            )
        left = len(self._view) - self.position
        if length > left:  # every value takes a byte at least
            raise ServingError(
                f"the message is truncated: a map or list of {length} values in {left} bytes"
            )
        if self._num_items + length > self._limits.max_items:
            self._count(length)

    def _count(self, more: int) -> None:
        self._num_items += more
        if self._num_items > self._limits.max_items:
            raise ServingError(
                f"the message holds more than {self._limits.max_items} values; send numbers as numpy arrays"
            )

    def _take(self, length: int) -> memoryview[int]:
        end = self.position + length
        if end > len(self._view):
            raise ServingError(
                f"the message is truncated: {length} bytes expected at {self.position}, "
                f"{len(self._view) - self.position} are there"
            )
        taken, self.position = self._view[self.position : end], end
        return taken

    def text_of(self, code: str) -> str:
        return self._text(self.number(code))

    def list_of(self, code: str, depth: int) -> list[Any]:
        return self._list(self.number(code), depth)

    def map_of(self, code: str, depth: int) -> Any:
        return self._map(self.number(code), depth)


def _resolved(values: dict[Any, Any]) -> Any:
    """Returns the array or scalar that a map stands for, or the map itself with copies of its bytes."""
    if _ARRAY in values:
        _check_entries(values, (_ARRAY, b"data", b"dtype", b"shape"))
        data = values[b"data"]
        if not isinstance(data, memoryview):
            raise ServingError("the data of a numpy array must be bytes")
        return array_from_bytes(cast("memoryview[int]", data), values[b"dtype"], values[b"shape"])
    if _SCALAR in values:
        _check_entries(values, (_SCALAR, b"data", b"dtype"))
        return scalar_from_number(values[b"data"], values[b"dtype"])
    for key, value in values.items():
        if isinstance(key, bytes):
            raise ServingError(f"a key of a map must be text; got {shown(key)}")
        if isinstance(value, memoryview):
            values[key] = bytes(cast("memoryview[int]", value))
    return values


def _check_entries(values: Mapping[Any, Any], expected: tuple[bytes, ...]) -> None:
    if set(values) != set(expected) or values[expected[0]] is not True:
        names = ", ".join(name.decode() for name in expected)
        raise ServingError(f"a numpy value needs exactly {names}; got {shown(list(values))}")


_CODES: dict[int, Callable[[_Reader, int], Any]] = {
    0xC0: lambda reader, depth: None,
    0xC2: lambda reader, depth: False,
    0xC3: lambda reader, depth: True,
    0xC4: lambda reader, depth: reader.data(reader.number("B")),
    0xC5: lambda reader, depth: reader.data(reader.number("H")),
    0xC6: lambda reader, depth: reader.data(reader.number("I")),
    0xD9: lambda reader, depth: reader.text_of("B"),
    0xDA: lambda reader, depth: reader.text_of("H"),
    0xDB: lambda reader, depth: reader.text_of("I"),
    0xDC: lambda reader, depth: reader.list_of("H", depth),
    0xDD: lambda reader, depth: reader.list_of("I", depth),
    0xDE: lambda reader, depth: reader.map_of("H", depth),
    0xDF: lambda reader, depth: reader.map_of("I", depth),
}
for _first, _formats in ((0xCA, "fd"), (0xCC, "BHIQ"), (0xD0, "bhiq")):
    for _offset, _format in enumerate(_formats):
        _CODES[_first + _offset] = lambda reader, depth, code=_format: reader.number(code)


# ---- writing -------------------------------------------------------------------------------------------------------


def _write(value: Any, parts: list[bytes], depth: int) -> None:
    if depth > 32:
        raise ServingError("the value nests deeper than 32 maps and lists, or contains itself")
    match value:
        case None:
            parts.append(b"\xc0")
        case np.ndarray():
            _write(_array_entries(cast(NDArray[Any], value)), parts, depth)
        case str():
            raw = _encoded(value)
            parts += [_head(len(raw), 0xA0, 31, {0xD9: 8, 0xDA: 16, 0xDB: 32}), raw]
        case bytes():
            parts += [_head(len(value), 0, -1, {0xC4: 8, 0xC5: 16, 0xC6: 32}), value]
        case np.generic():
            name = _checked_dtype(cast("np.generic[Any]", value).dtype)
            _write({_SCALAR: True, b"data": value.item(), b"dtype": name}, parts, depth)
        case bool():
            parts.append(b"\xc3" if value else b"\xc2")
        case int():
            parts.append(_packed_int(value))
        case float():
            parts.append(struct.pack(">Bd", 0xCB, value))
        case dict():
            entries = cast(dict[Any, Any], value)
            parts.append(_head(len(entries), 0x80, 15, {0xDE: 16, 0xDF: 32}))
            for key, item in entries.items():
                _write(key, parts, depth + 1)
                _write(item, parts, depth + 1)
        case list() | tuple():
            items = cast(Sequence[Any], value)
            parts.append(_head(len(items), 0x90, 15, {0xDC: 16, 0xDD: 32}))
            for item in items:
                _write(item, parts, depth + 1)
        case _:
            raise ServingError(
                f"cannot send a {type(value).__name__}; send maps, lists, text, numbers and numpy arrays"
            )


def _array_entries(array: NDArray[Any]) -> dict[bytes, Any]:
    name = _checked_dtype(array.dtype)
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return {_ARRAY: True, b"data": data, b"dtype": name, b"shape": array.shape}


def _checked_dtype(dtype: np.dtype[Any]) -> str:
    name = dtype.newbyteorder("<").str
    if name not in DTYPES:
        raise ServingError(unknown_name("dtype", name, DTYPES))
    return name


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ServingError(f"the text {shown(text)} is not valid Unicode") from error


def _packed_int(value: int) -> bytes:
    if -32 <= value <= 127:
        return struct.pack(">b" if value < 0 else ">B", value)
    for first, formats in ((0xCC, "BHIQ"), (0xD0, "bhiq")):
        for offset, code in enumerate(formats):
            try:
                return struct.pack(f">B{code}", first + offset, value)
            except struct.error:
                continue
    raise ServingError(f"{value} does not fit 64 bits")


def _head(length: int, short: int, longest: int, codes: Mapping[int, int]) -> bytes:
    """Returns the first bytes of a value of `length`: one where it is at most `longest`, else a code and the length."""
    if length <= longest:
        return bytes([short | length])
    for code, bits in codes.items():
        if length < 1 << bits:
            return struct.pack({8: ">BB", 16: ">BH", 32: ">BI"}[bits], code, length)
    raise ServingError(f"a value of {length} bytes or entries is too long to send")
