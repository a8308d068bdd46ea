"""Where the live page is, and how often it changes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from vla.errors import ConfigError


@dataclass(kw_only=True)
class PageConfig:
    """Where the live page is."""

    host: str = "127.0.0.1"  # with any other than loopback the page's address carries a token
    port: int = 8080  # 0 = any free port
    token_env: str = (
        "VLA_PAGE_TOKEN"  # environment variable with the token; without one it is drawn
    )
    token_file: str = ""  # file with the token; goes before the environment variable
    updates_per_s: float = 10.0  # of the numbers and of each camera
    image_size: int = 192  # pixels, of a simulated camera on the page

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"page.port must lie in [0, 65535]; got {self.port}")
        if not 0 < self.updates_per_s <= 60:
            raise ConfigError(f"page.updates_per_s must lie in (0, 60]; got {self.updates_per_s}")
        if not 16 <= self.image_size <= 1024:
            raise ConfigError(f"page.image_size is {self.image_size}; expected 16 to 1024 pixels")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
