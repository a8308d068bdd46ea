"""OpenVLA's `POST /act`: one picture and one instruction in, one action out, JSON with json_numpy's arrays.

Source: openvla, vla-scripts/deploy.py. Departure: where OpenVLA answers every error with status 200 and the text
"error", this answers with a fitting status and the JSON text "error: what was wrong".
HTTP is spoken here as far as this needs it; the standard library's server would need a thread for every connection.
"""

from __future__ import annotations

import asyncio
import http
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from vla.errors import PolicyError, ServingError, VlaError
from vla.serving import numpy_json
from vla.serving.access import Allowance, Gate
from vla.serving.service import InternalError, PolicyService
from vla.serving.worker import LateError

logger = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 16 << 10
_MAX_HEADERS = 64
_IDLE_S = 60.0  # longest pause between two requests on one connection
_WAITING_PER_PLACE = 4  # connections without a whole request, for each client that may be served


class HttpError(ServingError):
    """A request that is answered with an HTTP status of its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Head:
    """Request line and headers; names of headers are in lower case."""

    method: str
    path: str
    version: str
    headers: dict[str, str]

    @property
    def keeps_alive(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return connection != "close" if self.version == "HTTP/1.1" else connection == "keep-alive"


class RestServer:
    """Answers `POST /act` and `GET /healthz` for one service."""

    def __init__(self, service: PolicyService, gate: Gate) -> None:
        self._service, self._gate = service, gate
        self._limits = service.limits
        self._num_served = 0  # requests of clients that may ask
        self._waiting: dict[asyncio.StreamWriter, None] = {}  # no whole request yet, oldest first
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, tls: ssl.SSLContext | None
    ) -> AsyncGenerator[asyncio.Server]:
        """Listens while the context lasts; at its end open connections are closed."""
        server = await asyncio.start_server(
            self._serve_connection, host, port, ssl=tls, limit=_MAX_HEAD_BYTES
        )
        try:
            yield server
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve_requests(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # gone, or silent for too long
        finally:
            self._tasks.discard(task)
            self._waiting.pop(writer, None)
            writer.transport.abort()

    async def _serve_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        allowance = Allowance(self._limits.messages_per_s)
        wait_s = self._limits.message_timeout_s
        while True:
            keeps_alive = False
            try:
                head = await self._read_head(reader, writer, wait_s)
                if not allowance.take():
                    raise HttpError(
                        429, f"more than {self._limits.messages_per_s:g} requests a second"
                    )
                status, text, keeps_alive = await self._answer(head, reader, writer)
            except VlaError as error:
                status, text = _status_of(error), self._refusal(error)
            async with asyncio.timeout(self._limits.message_timeout_s):
                writer.write(_response(status, text, keeps_alive))
                await writer.drain()
            if not keeps_alive:
                await self._linger(reader, writer)
                return
            wait_s = _IDLE_S

    async def _answer(
        self, head: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, str, bool]:
        """Returns status, body and whether the connection stays open."""
        length = _content_length(head)
        if head.path == "/healthz" and head.method == "GET" and not length:
            stuck = self._service.is_stuck
            return (
                (503, "the policy is stuck\n", False) if stuck else (200, "OK\n", head.keeps_alive)
            )
        refusal = self._gate.refusal(head.headers.get("authorization"), head.headers.get("origin"))
        if refusal is not None:
            raise HttpError(*refusal)
        if head.path != "/act":
            raise HttpError(
                404, f"no {head.path[:80]!r} here; there are POST /act and GET /healthz"
            )
        if head.method != "POST":
            raise HttpError(405, f"/act takes POST; got {head.method[:20]!r}")
        if length is None:
            raise HttpError(411, "a request needs the header Content-Length")
        if length > self._limits.wire.max_bytes:
            raise HttpError(
                413,
                f"the request has {length} bytes; at most {self._limits.wire.max_bytes} are taken: "
                "send smaller pictures",
            )
        if self._num_served >= self._limits.max_clients:
            raise HttpError(503, f"all {self._num_served} places are taken; ask again")
        self._num_served += 1
        try:
            body = await self._read_body(head, length, reader, writer)
            return 200, await self._service.answer_json(body), head.keeps_alive
        finally:
            self._num_served -= 1

    async def _read_head(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float
    ) -> _Head:
        """Returns the next request's head; the oldest others that wait give way where there are too many."""
        self._waiting[writer] = None
        while len(self._waiting) > _WAITING_PER_PLACE * self._limits.max_clients:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(wait_s):
                raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise HttpError(
                431, f"the head of the request is over {_MAX_HEAD_BYTES} bytes"
            ) from error
        finally:
            self._waiting.pop(writer, None)
        return _parsed(raw)

    async def _read_body(
        self,
        head: _Head,
        length: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        if head.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        limit_s = self._limits.message_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await reader.readexactly(length)
        except TimeoutError as error:
            raise HttpError(
                408, f"the request took longer than limits.message_timeout_s={limit_s:g} to arrive"
            ) from error

    async def _linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads on for a moment: closing with unread bytes would take the answer back."""
        with suppress(OSError, RuntimeError):
            writer.write_eof()  # not over TLS
        left = 4 * self._limits.wire.max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while left > 0 and (data := await reader.read(1 << 16)):
                    left -= len(data)

    def _refusal(self, error: Exception) -> str:
        return numpy_json.dumps(f"error: {self._service.refused(error)}")


def _parsed(raw: bytes) -> _Head:
    lines = raw[:-4].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(400, "not an HTTP/1.1 request")
    if len(lines) > _MAX_HEADERS:
        raise HttpError(431, f"more than {_MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip() or not name.isprintable():
            raise HttpError(400, "a header is malformed")
        if name in headers and name in ("content-length", "authorization", "transfer-encoding"):
            raise HttpError(400, f"the header {name} comes twice")
        headers[name] = value.strip()
    return _Head(words[0], words[1].partition("?")[0], words[2], headers)


def _content_length(head: _Head) -> int | None:
    if "transfer-encoding" in head.headers:
        raise HttpError(411, "chunked requests are not taken; send Content-Length")
    text = head.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HttpError(400, "Content-Length is not a whole number")
    return int(text)


def _status_of(error: Exception) -> int:
    match error:
        case HttpError():
            return error.status
        case LateError():
            return 503
        case InternalError():
            return 500
        case PolicyError():
            return 422
        case _:
            return 400


def _response(status: int, text: str, keeps_alive: bool) -> bytes:
    body = text.encode()
    lines = [
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Connection: {'keep-alive' if keeps_alive else 'close'}",
        *(["WWW-Authenticate: Api-Key"] if status == 401 else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
