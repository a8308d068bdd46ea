"""Pictures of the arm, published the way LeRobot's `zmq` camera expects them."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla.control.channel import Field, SharedChannel
from vla.errors import RobotError
from vla.robots import so101

_NOISE = 3.0  # standard deviation, of 255: two frames of a real camera are never the same bytes
_QUALITY = 85
_LONGEST_START_S = 60.0
_NICENESS = -5  # a real camera has its own processor


@dataclass(frozen=True, kw_only=True)
class CameraSettings:
    """What is published where: names of cameras in the model, 127.0.0.1:`port` (0 = a free one), pixels, frames/s."""

    names: tuple[str, ...] = ("front", "wrist")
    port: int = 0
    width: int = 224
    height: int = 224
    fps: float = 10.0


class CameraServer:
    """Draws the arm in a process of its own and publishes each round of pictures as one message.

    Drawing in software takes tens of milliseconds, in which a thread of the same process would not answer the bus.
    The message is LeRobot's: JSON with `timestamps` and base64 JPEG `images` by camera name. LeRobot's own server
    hands RGB to an encoder that takes it for BGR, and its client decodes the same way round; so do we.
    """

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        context = multiprocessing.get_context("spawn")  # a fork would copy GL contexts
        self._stop, self._freeze = context.Event(), context.Event()
        self._pose = SharedChannel({"joints": Field((len(so101.MOTORS),))})
        self._news, news = context.Pipe(duplex=False)
        arguments = (settings, self._pose, news, self._stop, self._freeze)
        self._process = context.Process(target=_serve, args=arguments, name="cameras", daemon=True)
        self.port = settings.port

    def start(self) -> None:
        """Begins to publish; raises RobotError when pyzmq is missing or the port is taken."""
        if sys.platform == "linux" and "DISPLAY" not in os.environ:
            os.environ.setdefault("MUJOCO_GL", "egl")  # the process draws without a window
        self._process.start()
        if not self._news.poll(_LONGEST_START_S):
            self.stop()
            raise RobotError(f"the cameras published nothing within {_LONGEST_START_S:.0f} s")
        try:
            news: object = self._news.recv()
        except EOFError:
            news = "its process died"
        if not isinstance(news, int):
            self.stop()
            raise RobotError(f"cannot serve cameras at 127.0.0.1:{self.port}: {news}")
        self.port = news

    def show(self, joints: NDArray[np.float64]) -> None:
        """Takes over where the hinges (6,) are, rad."""
        self._pose.channel.publish(joints=joints)

    def freeze(self, is_frozen: bool) -> None:
        """Publishes the same frame again and again, as a hung camera does, until told otherwise."""
        (self._freeze.set if is_frozen else self._freeze.clear)()

    def stop(self) -> None:
        """Ends the process and frees the port; a second call does nothing."""
        self._stop.set()
        if self._process.pid is not None:
            self._process.join(5.0)
            self._process.kill()
        self._pose.unlink()


def _serve(
    settings: CameraSettings, pose: SharedChannel, news: Connection, stop: Event, freeze: Event
) -> None:
    with contextlib.suppress(OSError):  # not permitted: as any other process
        os.nice(_NICENESS)
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's renderer would take every core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    try:
        socket, port = _bind(settings.port)
    except RobotError as error:
        pose.close()
        news.send(str(error))
        return
    model = so101.build_model()
    data = mujoco.MjData(model)
    renderer = mujoco.Renderer(model, settings.height, settings.width)
    rng, text, parent = np.random.default_rng(0), "", os.getppid()
    while not stop.is_set() and os.getppid() == parent:
        began_s = time.monotonic()
        if not freeze.is_set() or not text:
            message = pose.channel.read_new()
            if message is not None:
                data.qpos[:] = message["joints"]
            mujoco.mj_forward(model, data)
            images = {name: _draw(renderer, data, name, rng) for name in settings.names}
            if not text:
                news.send(port)
            text = _message(images)
        socket.send_string(text)
        stop.wait(max(0.0, 1 / settings.fps - (time.monotonic() - began_s)))
    renderer.close()
    socket.close()
    pose.close()


def _bind(port: int) -> tuple[Any, int]:
    """Returns a publishing socket on the loopback interface and its port."""
    zmq = _zmq()
    socket: Any = zmq.Context.instance().socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 2)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.bind(f"tcp://127.0.0.1:{port or '*'}")
    except zmq.ZMQError as error:
        raise RobotError(f"{error}; give another camera_port, or 0 for a free one") from error
    endpoint: bytes = socket.getsockopt(zmq.LAST_ENDPOINT)
    return socket, int(endpoint.rstrip(b"\0").rpartition(b":")[2])


def _draw(renderer: Any, data: Any, name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    renderer.update_scene(data, name)
    renderer.scene.flags[int(mujoco.mjtRndFlag.mjRND_SHADOW)] = 0  # a third of the time
    clean: NDArray[np.uint8] = renderer.render()
    noise = rng.normal(0.0, _NOISE, clean.shape[:2])[..., None]
    return np.clip(clean + noise, 0, 255).astype(np.uint8)


def _message(images: dict[str, NDArray[np.uint8]]) -> str:
    now_s = time.time()
    return json.dumps(
        {
            "timestamps": dict.fromkeys(images, now_s),
            "images": {name: _encode(image) for name, image in images.items()},
        }
    )


def _encode(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(buffer, "jpeg", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _zmq() -> Any:
    try:
        import zmq
    except ImportError:
        raise RobotError(
            "cameras of the twin need pyzmq; install the extra: pip install 'vla[hardware]', or use cameras=[]"
        ) from None
    return zmq
