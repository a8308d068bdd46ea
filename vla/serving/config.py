"""Settings of the policy server: where it listens, who may ask, and how much."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from vla.errors import ConfigError
from vla.serving.wire import WireLimits


@dataclass(kw_only=True)
class LayoutConfig:
    """How one kind of client names what a policy sees. A `/` leads into a map: images/front is images, then front."""

    images: dict[str, str] = field(
        default_factory=dict[str, str]
    )  # the policy's camera: the client's key
    state: list[str] = field(
        default_factory=list[str]
    )  # keys that make up the proprioception, in order
    instruction: str = "prompt"  # key of the task in words


@dataclass(kw_only=True)
class LimitsConfig:
    """What one client may ask for, so that the others are served on."""

    max_message_mb: float = 8.0  # longest message; two raw pictures of 640 x 480 are 1.8
    max_clients: int = 16  # connections of each protocol at a time
    messages_per_s: float = 100.0  # of one client, one second's worth at once; more ends it
    deadline_s: float = 10.0  # from a message's arrival to its answer, waiting included
    message_timeout_s: float = 10.0  # from the first to the last byte of a message

    def __post_init__(self) -> None:
        for name in ("max_message_mb", "messages_per_s", "deadline_s", "message_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"limits.{name} must be positive; got {getattr(self, name)}")
        if self.max_clients < 1:
            raise ConfigError(f"limits.max_clients must be at least 1; got {self.max_clients}")

    @property
    def wire(self) -> WireLimits:
        """Limits of one message."""
        return WireLimits(max_bytes=int(self.max_message_mb * (1 << 20)))


@dataclass(kw_only=True)
class ServerConfig:
    """Addresses, access and limits."""

    host: str = "127.0.0.1"  # any other than loopback needs a token; 0.0.0.0 = all interfaces
    port: int = 8000  # openpi's websocket protocol; 0 = any free port
    # OpenVLA's POST /act; null = not offered, 0 = any free port
    rest_port: int | None = 8001
    token_env: str = "VLA_SERVE_TOKEN"  # environment variable with the token, where it is set
    token_file: str = ""  # file with the token; goes before the environment variable
    tls_certificate: str = ""  # PEM file; with it both ports speak TLS (wss, https)
    tls_key: str = ""  # PEM file of its private key
    limits: LimitsConfig = field(default_factory=LimitsConfig)  # per client
    # more kinds of clients than those built in, by name
    layouts: dict[str, LayoutConfig] = field(default_factory=dict[str, LayoutConfig])

    def __post_init__(self) -> None:
        for name, port in (("port", self.port), ("rest_port", self.rest_port)):
            if port is not None and not 0 <= port <= 65535:
                raise ConfigError(f"{name} must lie in [0, 65535]; got {port}")
        if self.port and self.port == self.rest_port:
            raise ConfigError(
                f"port and rest_port are both {self.port}; give rest_port=OTHER, or null"
            )
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ConfigError("tls_certificate and tls_key go together; give both or none")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect; a name other than localhost counts as one that others can reach."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
