"""Who may ask, and how often: the token, TLS, and an allowance of messages."""

from __future__ import annotations

import hmac
import logging
import os
import ssl
import time
from pathlib import Path

from vla.errors import ConfigError
from vla.serving.config import ServerConfig

logger = logging.getLogger(__name__)

SHORTEST_TOKEN = 16
_NEW_TOKEN = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


def read_token(token_file: str, token_env: str) -> str | None:
    """Returns the token in the file, else in the environment variable, else None.

    Raises:
        ConfigError: the file cannot be read, or holds nothing.
    """
    if token_file:
        path = Path(token_file).expanduser()
        try:
            token = path.read_text(encoding="utf-8").strip()
            is_open = bool(path.stat().st_mode & 0o077)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the token file {path}: {error}; make one with {_NEW_TOKEN} > {path}"
            ) from error
        if not token:
            raise ConfigError(f"the token file {path} is empty; fill it with {_NEW_TOKEN}")
        if is_open:
            logger.warning("others can read the token file %s; chmod 600 %s", path, path)
        return token
    return (os.environ.get(token_env, "").strip() or None) if token_env else None


def server_token(config: ServerConfig) -> str | None:
    """Returns the token that clients must show, or None where none is needed.

    Raises:
        ConfigError: others than this machine can connect and there is no token, or a short one.
    """
    token = read_token(config.token_file, config.token_env)
    if token is None and not config.is_loopback:
        raise ConfigError(
            f"host={config.host} lets other machines move what this policy drives, so it needs a token: "
            f"export {config.token_env or 'VLA_SERVE_TOKEN'}=$({_NEW_TOKEN}), or give token_file=PATH; "
            "without one, use host=127.0.0.1"
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ConfigError(
            f"the token has {len(token)} characters; use at least {SHORTEST_TOKEN} of ASCII: {_NEW_TOKEN}"
        )
    return token


class Gate:
    """Lets requests with the right token pass."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token is not None else None

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def refusal(self, authorization: str | None, origin: str | None) -> tuple[int, str] | None:
        """Returns the HTTP status and why a request is refused, or None when it may pass.

        Args:
            authorization: its header: `Api-Key TOKEN`, as openpi's client sends it, or `Bearer TOKEN`.
            origin: its header; only browsers send one, and a page somebody visits must not drive a robot.
        """
        if origin is not None:
            return 403, "requests from web pages are refused"
        if self._token is None:
            return None
        scheme, _, given = (authorization or "").strip().partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(errors="replace"), self._token)
        if is_right and scheme.lower() in ("api-key", "bearer"):
            return None
        problem = "the token is wrong" if authorization else "a token is needed"
        return 401, f"{problem}; send the header `Authorization: Api-Key TOKEN`"


class Allowance:
    """Lets `rate` messages a second pass, and one second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = max(1.0, rate)
        self._filled_s = time.monotonic()

    def take(self) -> bool:
        now_s = time.monotonic()
        self._left = min(max(1.0, self._rate), self._left + self._rate * (now_s - self._filled_s))
        self._filled_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


def server_tls(config: ServerConfig) -> ssl.SSLContext | None:
    """Returns what both ports speak TLS with, or None without certificate; raises ConfigError when it is no use."""
    if not config.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(
            Path(config.tls_certificate).expanduser(), Path(config.tls_key).expanduser()
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot use tls_certificate={config.tls_certificate} with tls_key={config.tls_key}: {error}; "
            "give PEM files of a certificate chain and its private key"
        ) from error
    return context
