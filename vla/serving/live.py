"""The live page: shows a drive to any number of browsers, and never waits for one.

What is to be shown comes by name (the state, each camera); a browser that is slow gets the newest of each and loses
those before it. The page only looks: nothing a browser sends reaches the robot.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import json
import logging
import secrets
import threading
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from vla.errors import ConfigError
from vla.serving.access import SHORTEST_TOKEN, read_token
from vla.serving.page_config import PageConfig

_PAGE = "live_page.html"
_LONGEST_START_S = 10.0
_LONGEST_HELLO_S = 5.0
_MAX_HELLO_BYTES = 1024
_MAX_BROWSERS = 16
# One file, nothing from elsewhere, and no other page may frame it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_quiet = logging.getLogger(f"{__name__}.connections")
_quiet.setLevel(logging.CRITICAL)


@dataclass
class PageCounts:
    """Browsers so far, messages sent, and those that a slow browser never got because newer ones came."""

    browsers: int = 0
    sent: int = 0
    dropped: int = 0
    refused: int = 0


class LivePage:
    """Serves the page from a thread of its own."""

    def __init__(self, config: PageConfig) -> None:
        """Takes the settings; raises ConfigError when the token cannot be used. Nothing is opened before `start`."""
        self._config = config
        self._token = _token(config)
        self._page = resources.files("vla.serving").joinpath(_PAGE).read_bytes()
        self._mailboxes: set[_Mailbox] = set()
        self._newest: dict[str, str | bytes] = {}  # for a browser that comes later
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._is_up = threading.Event()
        self._failure: OSError | None = None
        self._port = config.port
        self.counts = PageCounts()

    @property
    def url(self) -> str:
        """Where a browser finds the page; the token stands after the #, which browsers keep to themselves."""
        host = self._config.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        shown = f"[{shown}]" if ":" in shown else shown
        return f"http://{shown}:{self._port}/" + (f"#{self._token}" if self._token else "")

    @property
    def has_browsers(self) -> bool:
        """Whether anybody looks."""
        return bool(self._mailboxes)

    def start(self) -> None:
        """Listens; raises ConfigError when the address cannot be had."""
        self._thread = threading.Thread(target=self._run, name="live page", daemon=True)
        self._thread.start()
        self._is_up.wait(_LONGEST_START_S)
        if self._failure is not None:
            raise ConfigError(
                f"the live page cannot listen at {self._config.host}:{self._config.port} "
                f"({self._failure.strerror}); give page.port=OTHER, or 0 for any"
            )

    def show_state(self, state: dict[str, Any]) -> None:
        """Shows the numbers."""
        self._post("state", json.dumps(state, allow_nan=False))

    def show_picture(self, camera: str, jpeg: bytes) -> None:
        """Shows a camera's newest picture."""
        name = camera.encode()[:255]
        self._post(f"picture {camera}", bytes([len(name)]) + name + jpeg)

    def stop(self) -> None:
        """Says goodbye to every browser and stops listening."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(_LONGEST_START_S)

    def _post(self, name: str, message: str | bytes) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, name, message)

    # ---- in the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._is_up.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(
            self._talk,
            self._config.host,
            self._config.port,
            process_request=self._answer,
            max_size=_MAX_HELLO_BYTES,
            compression=None,
            write_limit=1
            << 16,  # what waits for a slow browser stays here, where newer replaces older
            ping_interval=10.0,
            ping_timeout=10.0,
            close_timeout=1.0,
            logger=_quiet,
            server_header=None,
        ) as server:
            self._port = next(iter(server.sockets)).getsockname()[1]
            self._is_up.set()
            await self._stop.wait()
            for mailbox in self._mailboxes:
                mailbox.close()
            await asyncio.sleep(0.2)  # for the last state to be sent

    def _deliver(self, name: str, message: str | bytes) -> None:
        self._newest[name] = message
        for mailbox in self._mailboxes:
            self.counts.dropped += mailbox.put(name, message)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Returns the page, or None to go on with the websocket's handshake."""
        path = urlsplit(request.path).path
        hosts = request.headers.get_all("Host")
        if not hosts or not self._is_ours(hosts[0]):
            return self._refuse(connection, "this is not the address of the live page")
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if path == "/":
            headers = Headers(
                {
                    "Content-Type": "text/html; charset=utf-8",
                    "Content-Length": str(len(self._page)),
                    "Content-Security-Policy": _POLICY,
                    "Cache-Control": "no-store",
                    "X-Content-Type-Options": "nosniff",
                    "Referrer-Policy": "no-referrer",
                }
            )
            return Response(http.HTTPStatus.OK, "OK", headers, self._page)
        if path != "/live":
            return connection.respond(http.HTTPStatus.NOT_FOUND, "only / is here\n")
        origins = request.headers.get_all("Origin")
        if origins and urlsplit(origins[0]).netloc != hosts[0]:
            return self._refuse(connection, "another page may not look")
        if len(self._mailboxes) >= _MAX_BROWSERS:
            return self._refuse(connection, f"{_MAX_BROWSERS} browsers look already")
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether the Host header is one that this address goes by: a foreign name that leads here is not."""
        if not self._config.is_loopback:
            return True  # the token decides
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("localhost", "127.0.0.1", "::1", self._config.host)

    def _refuse(self, connection: ServerConnection, why: str) -> Response:
        self.counts.refused += 1
        return connection.respond(http.HTTPStatus.FORBIDDEN, f"{why}\n")

    async def _talk(self, connection: ServerConnection) -> None:
        try:
            if not await self._is_known(connection):
                self.counts.refused += 1
                await connection.close(CloseCode.POLICY_VIOLATION, "wrong token")
                return
            mailbox = _Mailbox(dict(self._newest))
            self._mailboxes.add(mailbox)
            self.counts.browsers += 1
            try:
                async for message in mailbox:
                    await connection.send(message)
                    self.counts.sent += 1
            finally:
                self._mailboxes.discard(mailbox)
        except (ConnectionClosed, TimeoutError):
            pass  # gone

    async def _is_known(self, connection: ServerConnection) -> bool:
        """Whether the browser's first message is the token; any will do where none is needed."""
        async with asyncio.timeout(_LONGEST_HELLO_S):
            hello = await connection.recv()
        if self._token is None:
            return True
        given = hello if isinstance(hello, bytes) else hello.encode()
        return hmac.compare_digest(given, self._token.encode())


class _Mailbox:
    """What one browser has yet to get: the newest of each name."""

    def __init__(self, messages: dict[str, str | bytes]) -> None:
        self._messages = messages
        self._has_news = asyncio.Event()
        self._is_closed = False
        self._has_news.set()

    def put(self, name: str, message: str | bytes) -> int:
        """Takes a message and returns how many it replaces."""
        num_dropped = int(name in self._messages)
        self._messages[name] = message
        self._has_news.set()
        return num_dropped

    def close(self) -> None:
        """Ends the iteration after what is there."""
        self._is_closed = True
        self._has_news.set()

    def __aiter__(self) -> _Mailbox:
        return self

    async def __anext__(self) -> str | bytes:
        while not self._messages:
            if self._is_closed:
                raise StopAsyncIteration
            self._has_news.clear()
            await self._has_news.wait()
        return self._messages.pop(next(iter(self._messages)))


def _token(config: PageConfig) -> str | None:
    """Returns the token that browsers must show: the one given, else a new one where other machines can connect."""
    given = read_token(config.token_file, config.token_env)
    if given is None:
        return None if config.is_loopback else secrets.token_urlsafe(24)
    if len(given) < SHORTEST_TOKEN or not given.isascii():
        raise ConfigError(
            f"the page's token has {len(given)} characters; use at least {SHORTEST_TOKEN} of ASCII"
        )
    return given
