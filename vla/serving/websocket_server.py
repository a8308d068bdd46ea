"""openpi's websocket protocol: metadata first, then an answer for every observation, msgpack both ways.

Source: openpi, serving/websocket_policy_server.py and openpi-client 0.1.2. An error is a TEXT frame, which its client
raises, followed by close code 1011. Departures: sizes, rates and clients are limited, the text is a message instead of
a traceback, and of several observations that wait only the newest is answered (its client never sends several).
"""

from __future__ import annotations

import asyncio
import http
import logging
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from vla.errors import ServingError
from vla.serving import wire
from vla.serving.access import Allowance, Gate
from vla.serving.service import PolicyService
from vla.serving.worker import LateError

_MAX_QUEUE = 1  # frames the library holds for us; more makes the client wait
_quiet = logging.getLogger(
    f"{__name__}.connections"
)  # garbage at the door is not worth a traceback
_quiet.setLevel(logging.CRITICAL)


class RateError(ServingError):
    """A client sends more messages than it may."""


class WebsocketServer:
    """Speaks openpi's protocol for one service."""

    def __init__(self, service: PolicyService, gate: Gate) -> None:
        self._service, self._gate = service, gate
        self._metadata = wire.pack(service.metadata())
        self._num_clients = 0

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, tls: ssl.SSLContext | None
    ) -> AsyncGenerator[Server]:
        """Listens while the context lasts; at its end open connections are closed with 1001."""
        limits = self._service.limits
        async with serve(
            self._serve_client,
            host,
            port,
            ssl=tls,
            process_request=self._admit,
            compression=None,
            max_size=limits.wire.max_bytes,
            max_queue=_MAX_QUEUE,
            open_timeout=limits.message_timeout_s,
            # A peer that is in the middle of a frame cannot answer a ping: this ends slow senders too.
            ping_interval=limits.message_timeout_s,
            ping_timeout=limits.message_timeout_s,
            close_timeout=2.0,
            logger=_quiet,
            server_header=None,
        ) as server:
            yield server

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Returns None to go on with the handshake, or the HTTP response instead."""
        if request.path == "/healthz":
            stuck = self._service.is_stuck
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if stuck else http.HTTPStatus.OK
            return connection.respond(status, "the policy is stuck\n" if stuck else "OK\n")
        authorizations = request.headers.get_all("Authorization")
        origins = request.headers.get_all("Origin")
        refusal = self._gate.refusal(
            authorizations[0] if authorizations else None, origins[0] if origins else None
        )
        if refusal is not None:
            self._service.books.errors["access"] += 1
            return connection.respond(http.HTTPStatus(refusal[0]), f"{refusal[1]}\n")
        if self._num_clients >= self._service.limits.max_clients:
            self._service.books.errors["full"] += 1
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"all {self._num_clients} places are taken; raise limits.max_clients\n",
            )
        return None

    async def _serve_client(self, connection: ServerConnection) -> None:
        self._num_clients += 1
        try:
            await connection.send(self._metadata)
            await _Client(connection, self._service).run()
        except (ConnectionClosed, TimeoutError):
            pass  # gone, or ended by the library: a message too long, a ping unanswered, nothing read
        finally:
            self._num_clients -= 1


class _Client:
    """One connection: a task that reads, and one that answers the newest observation."""

    def __init__(self, connection: ServerConnection, service: PolicyService) -> None:
        self._connection, self._service = connection, service
        self._newest: tuple[bytes, float] | None = None  # and when it arrived
        self._has_news = asyncio.Event()
        self._num_dropped = 0
        self._allowance = Allowance(service.limits.messages_per_s)
        self._is_taken, self._taken_s = False, 0.0
        self._previous_ms: float | None = None

    async def run(self) -> None:
        """Serves until the client leaves or makes a mistake."""
        mistake: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_all())
                tasks.create_task(self._answer_all())
        except* ConnectionClosed:
            pass
        except* Exception as group:  # noqa: BLE001 - told to the client; the others are served on
            mistake = group.exceptions[0]
        if mistake is not None:
            await self._end(mistake)

    async def _read_all(self) -> None:
        while True:
            message = await self._read()
            if not self._allowance.take():
                raise RateError(
                    f"more than limits.messages_per_s={self._service.limits.messages_per_s:g} messages a second"
                )
            if isinstance(message, str):
                raise ServingError("a text frame; expected an observation as binary msgpack")
            if self._newest is not None:
                self._num_dropped += 1
                self._service.books.dropped += 1
            self._newest = (message, time.monotonic())
            self._has_news.set()

    async def _read(self) -> str | bytes:
        """Returns the next message; a client may take its time before it, but not within it."""
        fragments: list[str | bytes] = []
        limit_s = self._service.limits.message_timeout_s
        try:
            async with asyncio.timeout(None) as limit:
                async for fragment in self._connection.recv_streaming():
                    if not fragments:
                        limit.reschedule(asyncio.get_running_loop().time() + limit_s)
                    fragments.append(fragment)
                    if len(fragments) > self._service.limits.wire.max_items:
                        raise ServingError(f"a message of more than {len(fragments) - 1} fragments")
        except UnicodeDecodeError as error:
            raise ServingError("a text frame that is not UTF-8; expected binary msgpack") from error
        except TimeoutError as error:
            raise ServingError(
                f"a message took longer than limits.message_timeout_s={limit_s:g} to arrive"
            ) from error
        if fragments and isinstance(fragments[0], str):
            return "".join(str(fragment) for fragment in fragments)
        return b"".join(part for part in fragments if isinstance(part, bytes))

    async def _answer_all(self) -> None:
        while True:
            await self._has_news.wait()
            try:
                answer = await self._answer()
            except LateError as error:  # the observation was in order: the client may send another
                if not self._is_taken:
                    self._take()
                await self._connection.send(self._service.refused(error))
                continue
            await self._connection.send(answer)
            self._previous_ms = 1e3 * (time.monotonic() - self._taken_s)

    def _take(self) -> tuple[bytes, float]:
        """Returns the newest observation and when it arrived; there is none any more afterwards."""
        message, self._taken_s = self._newest or (b"", time.monotonic())
        self._newest, self._is_taken = None, True
        self._has_news.clear()
        return message, self._taken_s

    async def _answer(self) -> bytes:
        """Returns the answer to the observation that is the newest when this client's turn comes."""
        self._is_taken = False
        answer = await self._service.answer_message(self._take)
        timing = answer["server_timing"]
        if self._previous_ms is not None:
            timing["prev_total_ms"] = self._previous_ms
        timing["dropped"], self._num_dropped = self._num_dropped, 0
        return wire.pack(answer)

    async def _end(self, error: Exception) -> None:
        """Tells the client what was wrong, and closes."""
        text = self._service.refused(error)
        code = (
            CloseCode.POLICY_VIOLATION if isinstance(error, RateError) else CloseCode.INTERNAL_ERROR
        )
        async with asyncio.timeout(self._service.limits.message_timeout_s):
            await self._connection.send(text)
        await self._connection.close(code, text.encode()[:120].decode(errors="ignore"))
