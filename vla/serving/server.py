"""Both protocols of one policy, from the first connection to the last."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Generator, Iterable
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from vla.errors import ServingError
from vla.serving.access import Gate, server_tls, server_token
from vla.serving.card import PolicyCard
from vla.serving.config import ServerConfig
from vla.serving.layouts import ObservationReader
from vla.serving.rest_server import RestServer
from vla.serving.service import PolicyService
from vla.serving.websocket_server import WebsocketServer
from vla.types import Policy


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where a server can be reached, once it can.

    Attributes:
        websocket: URL of openpi's protocol.
        rest: URL of `POST /act`, or None.
        needs_token, has_tls: what a client must bring.
        layouts: keys of an observation by the name of the layout.
    """

    websocket: str
    rest: str | None
    needs_token: bool
    has_tls: bool
    layouts: dict[str, list[str]]


class PolicyServer:
    """Serves one policy over openpi's websocket protocol and OpenVLA's `POST /act`."""

    def __init__(self, policy: Policy, card: PolicyCard, config: ServerConfig) -> None:
        """Checks access and layouts; opens nothing yet.

        Raises:
            ConfigError: no token where one is needed, an unusable certificate, or a layout that lacks a camera.
        """
        self._config = config
        self._gate = Gate(server_token(config))
        self._tls = server_tls(config)
        self._reader = ObservationReader(card, config.layouts)
        self._service = PolicyService(policy, card, self._reader, config.limits)

    def run(self, on_listening: Callable[[Listening], None]) -> dict[str, Any]:
        """Serves until SIGINT or SIGTERM, and returns what was asked and answered."""
        return asyncio.run(self._run_until_signal(on_listening))

    async def serve(
        self, stop: asyncio.Event, on_listening: Callable[[Listening], None]
    ) -> dict[str, Any]:
        """Serves until `stop` is set, and returns what was asked and answered.

        Raises:
            ServingError: an address is taken, or cannot be listened on.
        """
        config = self._config
        self._service.warm_up()
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(startup_frozen())
                websocket = await stack.enter_async_context(
                    WebsocketServer(self._service, self._gate).listening(
                        config.host, config.port, self._tls
                    )
                )
                rest = None
                if config.rest_port is not None:
                    rest = await stack.enter_async_context(
                        RestServer(self._service, self._gate).listening(
                            config.host, config.rest_port, self._tls
                        )
                    )
                on_listening(self._listening(websocket.sockets, rest.sockets if rest else None))
                await stop.wait()
        except OSError as error:
            raise ServingError(
                f"cannot listen on {config.host}, ports {config.port} and {config.rest_port}: "
                f"{error.strerror or error}; give port=NUMBER rest_port=NUMBER (0 = any free port) or another host="
            ) from error
        finally:
            self._service.stop()
        return self._service.books.summary()

    async def _run_until_signal(self, on_listening: Callable[[Listening], None]) -> dict[str, Any]:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            return await self.serve(stop, on_listening)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _listening(
        self, websocket: Iterable[socket.socket], rest: Iterable[socket.socket] | None
    ) -> Listening:
        secure = "s" if self._tls else ""
        return Listening(
            websocket=f"ws{secure}://{self._address(websocket)}",
            rest=f"http{secure}://{self._address(rest)}/act" if rest else None,
            needs_token=self._gate.needs_token,
            has_tls=self._tls is not None,
            layouts=self._reader.keys_by_layout,
        )

    def _address(self, sockets: Iterable[socket.socket]) -> str:
        host = self._config.host
        port = next(iter(sockets)).getsockname()[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def startup_frozen() -> Generator[None]:
    """Leaves what exists at the start to itself when garbage is collected, while the context lasts.

    Every connection leaves reference cycles behind, the libraries' own and the tracebacks of what was refused. Python
    looks through the old objects only once a quarter as many have been added: with torch loaded these are 50,000, some
    10 MB of refuse, and a look stops every client for 100 ms. Without what the start has made both are next to nothing.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # sets the number that the quarter is taken of
    try:
        yield
    finally:
        gc.unfreeze()
