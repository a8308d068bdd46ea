"""What scripts/fuzz_server.py throws at a policy server: each attack returns how the server ended it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

from vla.serving import numpy_json, wire

TOKEN = "a token of the fuzzer's own making"
LIMITS = {"max_message_mb": 2, "message_timeout_s": 1, "messages_per_s": 200, "deadline_s": 60}


@dataclass(frozen=True)
class Scene:
    """An observation and the right answer to it."""

    values: dict[str, Any]
    actions: np.ndarray


@dataclass(frozen=True)
class Target:
    """Where the server is."""

    url: str
    host: str
    rest_port: int
    scenes: list[Scene]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Api-Key {TOKEN}"}

    def connect(self) -> ClientConnection:
        return connect(
            self.url,
            additional_headers=self.headers,
            compression=None,
            max_size=None,
            close_timeout=1,
        )

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


Attack = Callable[[Target, random.Random], str]


def _say(target: Target, message: bytes | str) -> str:
    """Sends one bad message and returns how the server ended it: anything but actions is fine."""
    with target.connect() as connection:
        connection.recv(timeout=30)
        connection.send(message)
        answer = connection.recv(timeout=60)
        if isinstance(answer, str):
            return "told what was wrong"
        raise AssertionError(f"nonsense was answered: {message[:100]!r}")


def garbage(target: Target, rng: random.Random) -> str:
    return _say(target, b"\xc1" + rng.randbytes(rng.randrange(0, 5000)))


def truncated(target: Target, rng: random.Random) -> str:
    message = wire.pack(rng.choice(target.scenes).values)
    return _say(target, message[: rng.randrange(len(message))])


def text(target: Target, rng: random.Random) -> str:
    return _say(target, rng.choice(["", "hello", "{}", "x" * 100_000]))


def wrong_values(target: Target, rng: random.Random) -> str:
    values = dict(rng.choice(target.scenes).values)
    camera = rng.choice(list(values["images"]))
    bad_picture: Any = rng.choice(
        [np.zeros((0, 0, 3), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros(7), "picture", None,
         np.full((9, 9, 3), np.nan), np.zeros((9, 9, 3), np.int64), [[1, 2], [3]], np.float32(1)]
    )  # fmt: skip
    bad_state: Any = rng.choice(
        [
            np.zeros(6),
            np.full(7, np.nan),
            np.full(7, 1e300),
            "state",
            None,
            [1, "2"],
            np.zeros((7, 1)),
        ]
    )
    match rng.randrange(4):
        case 0:
            values["images"] = {**values["images"], camera: bad_picture}
        case 1:
            values["state"] = bad_state
        case 2:
            values["instruction"] = rng.choice([None, "", 7, "x" * 5000, b"bytes"])
        case _:
            values.pop(rng.choice(["images", "state", "instruction"]))
    return _say(target, wire.pack(values))


def lying_arrays(target: Target, rng: random.Random) -> str:
    entries = {b"__ndarray__": True, b"data": b"\0" * 48, b"dtype": "|u1", b"shape": [4, 4, 3]}
    lie = rng.choice(
        [{b"shape": [1 << 40, 1 << 40]}, {b"shape": [-1, 48]}, {b"dtype": "|O"}, {b"dtype": "V48"},
         {b"dtype": "<c16"}, {b"shape": []}, {b"shape": [0] * 9}, {b"data": 5}, {b"dtype": ["|u1"]}]
    )  # fmt: skip
    return _say(target, wire.pack({"images": {"front": entries | lie}}))


def bombs(target: Target, rng: random.Random) -> str:
    bomb = rng.choice(
        [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff" * 9, b"\xc6\xff\xff\xff\xff",
         b"\xdc\xff\xff" * 5000, b"\xdd\x00\x01\x00\x00" + b"\x90" * 65536, b"\xc7\x01\x01\x01", b"\x81\xa1a"]
    )  # fmt: skip
    return _say(target, bomb)


def flipped_bits(target: Target, rng: random.Random) -> str:
    """Damages what is not a picture; some damage (another word, another number) is still an observation."""
    message = bytearray(wire.pack({**rng.choice(target.scenes).values, "images": {}}))
    for _ in range(rng.randrange(1, 8)):
        message[rng.randrange(len(message))] ^= 1 << rng.randrange(8)
    return _say(target, bytes(message))


def too_long(target: Target, rng: random.Random) -> str:
    try:
        return _say(target, b"\0" * (int(LIMITS["max_message_mb"]) << 21))
    except (WebSocketException, OSError) as error:
        return f"closed: {type(error).__name__}"


def flood(target: Target, rng: random.Random) -> str:
    message = wire.pack(rng.choice(target.scenes).values)
    with target.connect() as connection:
        try:
            for _ in range(2000):
                connection.send(message)
            return "flood taken"
        except (WebSocketException, OSError):
            return "flood ended"


def slow_sender(target: Target, rng: random.Random) -> str:
    """Speaks the handshake properly and then a frame byte by byte."""
    with socket.create_connection((target.host, target.port), timeout=30) as raw:
        raw.sendall(_handshake(target, TOKEN))
        raw.recv(65536)
        raw.sendall(struct.pack(">BBQ", 0x82, 0x80 | 127, 50_000) + b"\0" * 4)
        for _ in range(200):
            raw.sendall(b"\0")
            raw.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                while data := raw.recv(65536):
                    del data
                return "slow sender cut off"
        return "slow sender tolerated"


def slow_fragments(target: Target, rng: random.Random) -> str:
    def dribble() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.1)
            yield b"\x91"

    with target.connect() as connection:
        connection.recv(timeout=30)
        try:
            connection.send(dribble())
            return "slow fragments tolerated"
        except (WebSocketException, OSError):
            return "slow fragments cut off"


def wrong_key(target: Target, rng: random.Random) -> str:
    try:
        with connect(target.url, additional_headers={"Authorization": f"Api-Key {rng.random()}"}):
            raise AssertionError("a wrong token was let in")
    except InvalidHandshake:
        return "refused"


def raw_bytes(target: Target, rng: random.Random) -> str:
    port = rng.choice([target.port, target.rest_port])
    with socket.create_connection((target.host, port), timeout=30) as raw:
        lines = [
            b"GET / HTTP/1.1\r\n",
            b"POST /act HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            b"POST /act HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"X: " + b"y" * 40_000,
            _handshake(target, "no"),
        ]
        raw.sendall(rng.choice(lines) + rng.randbytes(rng.randrange(2000)))
        raw.settimeout(rng.choice([0.01, 1.0]))
        with contextlib.suppress(TimeoutError):
            raw.recv(4096)
    return "hung up"


def bad_requests(target: Target, rng: random.Random) -> str:
    array = {"__numpy__": base64.b64encode(b"\0" * 48).decode(), "dtype": "|u1", "shape": [4, 4, 3]}
    good = json.loads(numpy_json.dumps(rng.choice(target.scenes).values))
    bodies: list[bytes] = [
        b"", b"{", b"[" * 100_000, b"null", b'{"a": NaN}', b"\xff\xfe", rng.randbytes(1000), b"9" * 9000,
        b"[" + b"1," * 100_000 + b"1]", json.dumps({"encoded": 5}).encode(), json.dumps({"encoded": "{"}).encode(),
        json.dumps({**good, "unnorm_key": "no such data"}).encode(),
        json.dumps({**good, "images": {"front": {**array, "shape": [1 << 50]}}}).encode(),
        json.dumps({**good, "state": {**array, "dtype": "|O"}}).encode(),
    ]  # fmt: skip
    connection = http.client.HTTPConnection(target.host, target.rest_port, timeout=60)
    headers = target.headers if rng.random() < 0.9 else {}
    connection.request(rng.choice(["POST", "POST", "PUT"]), "/act", rng.choice(bodies), headers)
    status = connection.getresponse().status
    connection.close()
    if status == 200 or status >= 500:
        raise AssertionError(f"a bad request was answered with {status}")
    return f"status {status}"


ATTACKS: list[Attack] = [
    garbage, truncated, text, wrong_values, lying_arrays, bombs, flipped_bits, too_long, flood, slow_sender,
    slow_fragments, wrong_key, raw_bytes, bad_requests,
]  # fmt: skip
RARE = (flood, slow_sender, slow_fragments)  # seconds each


def _handshake(target: Target, token: str) -> bytes:
    return (
        f"GET / HTTP/1.1\r\nHost: {target.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Api-Key {token}\r\n\r\n"
    ).encode()
