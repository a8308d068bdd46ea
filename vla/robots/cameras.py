"""Cameras in one line of text each: `front=zmq://127.0.0.1:5555/front?width=320&height=240&fps=15`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from vla.errors import ConfigError

_HINT = "write NAME=zmq://HOST:PORT/CAMERA or NAME=opencv:/dev/video0, then ?width=640&height=480&fps=30"
_KINDS = ("zmq", "opencv")


@dataclass(frozen=True, kw_only=True)
class CameraAddress:
    """One camera of an arm: what the policy calls it, where it is, and the pictures it gives."""

    name: str
    kind: str  # a LeRobot camera: zmq or opencv
    host: str = ""
    port: int = 0
    remote_name: str = ""  # what the server calls it
    device: str = ""
    width: int = 640
    height: int = 480
    fps: int = 30


def parse_camera(text: str) -> CameraAddress:
    """Returns the camera that `text` describes; raises ConfigError when it cannot be read."""
    name, equals, address = text.partition("=")
    try:
        parts = urlsplit(address)
        options = {key: int(values[-1]) for key, values in parse_qs(parts.query).items()}
        port = parts.port or 0
    except ValueError as error:
        raise ConfigError(f"cannot read the camera {text!r} ({error}); {_HINT}") from error
    unknown = sorted(set(options) - {"width", "height", "fps"})
    if not equals or not name.isidentifier() or parts.scheme not in _KINDS or unknown:
        raise ConfigError(f"cannot read the camera {text!r}; {_HINT}")
    if parts.scheme == "zmq" and not (parts.hostname and port):
        raise ConfigError(f"the camera {text!r} needs a host and a port; {_HINT}")
    if min(options.values(), default=1) <= 0:
        raise ConfigError(f"width, height and fps of the camera {text!r} must be positive")
    return CameraAddress(
        name=name,
        kind=parts.scheme,
        host=parts.hostname or "",
        port=port,
        remote_name=parts.path.strip("/") or name,
        device=parts.path,
        **options,
    )
