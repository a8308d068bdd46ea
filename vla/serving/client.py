"""The robot's side of the websocket protocol: asks a policy server, and comes back after the line was down."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, cast

from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from vla.errors import PolicyError, ServingError
from vla.serving import wire

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # between attempts to connect; doubled each time
_FAREWELL_S = 0.1  # longest wait for the other side's goodbye


class PolicyClient:
    """One connection to a policy server, made when it is needed and again when it was lost."""

    def __init__(self, url: str, token: str | None = None, max_bytes: int = 8 << 20) -> None:
        """Opens nothing yet; `url` is ws://host:port or wss://host:port."""
        self._url, self._max_bytes = url, max_bytes
        self._headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._stack = ExitStack()  # holds the connection open
        self._connection: ClientConnection | None = None
        self.metadata: dict[str, Any] = {}

    def connect(self, within_s: float) -> dict[str, Any]:
        """Returns the server's metadata; tries again with growing pauses while nobody answers.

        Raises:
            PolicyError: nobody answered in time, or the server refused: then asking again would not help.
        """
        deadline_s = time.monotonic() + within_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._connect_once(max(0.05, deadline_s - time.monotonic()))
            except (OSError, EOFError, WebSocketException) as error:
                self.close()
                if _is_final_refusal(error):
                    raise PolicyError(_refusal_text(self._url, error)) from error
                if time.monotonic() + pause_s >= deadline_s:
                    raise PolicyError(
                        f"no policy server answers at {self._url} within {within_s:g} s ({_short(error)}); "
                        "start one with `vla serve`, or correct the address"
                    ) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def ask(self, observation: dict[str, Any], within_s: float) -> dict[str, Any]:
        """Returns the server's answer to an observation; a lost connection is made again and the question repeated.

        Raises:
            PolicyError: the server says what is wrong with the observation, or there was no answer in time.
        """
        deadline_s = time.monotonic() + within_s
        message = wire.pack(observation)
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                self.close()  # an answer that comes later must not be taken for the next one
                raise PolicyError(
                    f"no answer from {self._url} within {within_s:g} s; raise policy.deadline_s, or use a faster policy"
                )
            if self._connection is None:
                self.connect(left_s)
                continue
            try:
                self._connection.send(message)
                answer = self._connection.recv(timeout=left_s)
            except TimeoutError:
                continue
            except (OSError, EOFError, WebSocketException) as error:
                self.close()
                if _is_final_close(error):
                    raise PolicyError(
                        f"{self._url} ended the connection: {_short(error)}"
                    ) from error
                continue
            return self._read(answer)

    def close(self) -> None:
        """Ends the connection; the next question makes a new one."""
        self._connection = None
        self._stack.close()

    def _connect_once(self, within_s: float) -> dict[str, Any]:
        connecting = connect(
            self._url,
            additional_headers=self._headers,
            compression=None,
            max_size=self._max_bytes,
            open_timeout=within_s,
            close_timeout=_FAREWELL_S,
        )
        self._connection = self._stack.enter_context(connecting)
        metadata = self._read(self._connection.recv(timeout=within_s))
        if self.metadata and metadata.get("action_spec") != self.metadata.get("action_spec"):
            self.close()
            raise PolicyError(
                f"{self._url} now serves a policy with other actions than before; start this program again"
            )
        self.metadata = metadata
        return metadata

    def _read(self, answer: str | bytes) -> dict[str, Any]:
        if isinstance(answer, str):
            self.close()
            raise PolicyError(f"{self._url} says: {answer[:2000]}")
        try:
            value = wire.unpack(answer)
        except ServingError as error:
            self.close()
            raise PolicyError(f"{self._url} sent what is no answer: {error}") from error
        if not isinstance(value, dict):
            self.close()
            raise PolicyError(f"{self._url} sent a {type(value).__name__}; expected a map")
        return cast(dict[str, Any], value)


def _is_final_refusal(error: BaseException) -> bool:
    """Whether asking again would not help: a wrong address or token; a server that is full may have room later."""
    is_client_error = isinstance(error, InvalidStatus) and error.response.status_code < 500
    return isinstance(error, InvalidURI) or is_client_error


def _refusal_text(url: str, error: BaseException) -> str:
    if not isinstance(error, InvalidStatus):
        return f"{url!r} is not the address of a policy server; give policy.url=ws://HOST:PORT"
    status = error.response.status_code
    body = (error.response.body or b"").decode(errors="replace").strip()
    hint = (
        "; give the token in policy.token_file=PATH or in the variable that policy.token_env names"
    )
    return f"{url} refuses with status {status}: {body[:300]}{hint if status == 401 else ''}"


def _is_final_close(error: BaseException) -> bool:
    """Whether the connection was closed because of what was sent (1007 to 1009), so that it must not be sent again."""
    received = getattr(error, "rcvd", None)
    return received is not None and received.code in (1007, 1008, 1009)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
