"""A pseudo-terminal with a servo bus behind it: the other end opens it like /dev/ttyACM0."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import termios
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path

from vla.errors import RobotError
from vla.robots.twin.bus import ServoBus
from vla.robots.twin.protocol import Decoder

_IDLE_S = 0.005  # the arm moves on this often when nobody asks
_SILENCE_S = 0.05  # a packet that pauses for longer is given up
_PRIORITY = 60  # SCHED_FIFO; below a control loop's
_SPEEDS = {  # what termios calls the line speeds that a servo can have
    getattr(termios, f"B{speed}"): speed
    for speed in (1_000_000, 500_000, 115_200, 57_600, 38_400, 19_200)
    if hasattr(termios, f"B{speed}")
}


class TwinPort:
    """Serves a bus on a pseudo-terminal until stopped.

    A pseudo-terminal carries bytes whatever its line speed, so the speed that the other end has set is looked up with
    every packet: servos of another speed hear noise and say nothing.
    """

    def __init__(
        self,
        bus: ServoBus,
        advance: Callable[[float], None],
        *,
        reply_latency_s: float = 0.002,
        link: Path | None = None,
    ) -> None:
        """Opens the pseudo-terminal.

        Args:
            bus: who answers.
            advance: moves the arm on to an instant of time.monotonic, s.
            reply_latency_s: from an instruction to its first reply, as a USB adapter has.
            link: a path that is to lead to the pseudo-terminal, whose own name changes from run to run.
        """
        self._bus, self._advance, self._latency_s = bus, advance, reply_latency_s
        self._controller, self._line = pty.openpty()
        tty.setraw(self._controller)
        tty.setraw(self._line)
        os.set_blocking(self._controller, False)
        self.name = os.ttyname(self._line)
        self._link = link
        if link is not None:
            self._make_link(link)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> str:
        """What to give as the port."""
        return self.name if self._link is None else str(self._link)

    def start(self) -> None:
        """Serves in a thread of its own."""
        self._thread = threading.Thread(target=self.serve, name="servo bus", daemon=True)
        self._thread.start()

    def serve(self) -> None:
        """Serves until `stop`."""
        _hurry()
        decoder = Decoder()
        heard_s = time.monotonic()
        while not self._stop.is_set():
            is_readable = bool(select.select([self._controller], [], [], _IDLE_S)[0])
            now_s = time.monotonic()
            self._advance(now_s)
            self._bus.is_dead(now_s)
            if not is_readable:
                continue
            if now_s - heard_s > _SILENCE_S:
                decoder.forget()
            heard_s = now_s
            for packet in decoder.feed(os.read(self._controller, 4096)):
                replies = self._bus.handle(packet, self._speed(), time.monotonic())
                if replies:
                    time.sleep(self._latency_s)
                    self._send(b"".join(replies))

    def stop(self) -> None:
        """Ends serving and takes the port away, as unplugging does; a second call does nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for descriptor in (self._controller, self._line):
            if descriptor >= 0:
                os.close(descriptor)
        self._controller = self._line = -1
        if self._link is not None and self._link.is_symlink():
            self._link.unlink()

    def _speed(self) -> int:
        speed: int = termios.tcgetattr(self._line)[5]
        return _SPEEDS.get(speed, speed)

    def _send(self, data: bytes) -> None:
        try:
            os.write(self._controller, data)
        except BlockingIOError:  # nobody reads: what does not fit is lost, as on a wire
            termios.tcflush(self._controller, termios.TCOFLUSH)

    def _make_link(self, link: Path) -> None:
        if link.exists() and not link.is_symlink():
            raise RobotError(f"{link} exists and is no link; give another name for the port")
        link.unlink(missing_ok=True)
        link.symlink_to(self.name)


def _hurry() -> None:
    """Puts this thread before all ordinary ones where permitted: a motor answers however busy the computer is."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
