"""A twin in a process of its own, for programs that drive one: a script, a test, a rehearsal."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.errors import RobotError, VlaError
from vla.robots.twin.servo import Calibration
from vla.robots.twin.so101_twin import So101Twin, TwinConfig

_LONGEST_START_S = 90.0
_LONGEST_ANSWER_S = 10.0


@dataclass(frozen=True)
class TwinState:
    """What is really the case.

    Attributes:
        joints: (6,) rad, the gripper last.
        tool_position: (3,) m.
        is_enabled: (6,) whether each motor holds.
        counts: packets over the line, by kind.
    """

    joints: NDArray[np.float64]
    tool_position: NDArray[np.float64]
    is_enabled: tuple[bool, ...]
    counts: dict[str, int]


class TwinProcess:
    """Runs a `So101Twin` beside this process; use it in a with statement.

    A driver waits for a reply by spinning, and a twin in the same process would then be late with it.
    """

    def __init__(
        self,
        calibration: Mapping[str, Calibration],
        config: TwinConfig | None = None,
        link: Path | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        arguments = (dict(calibration), config or TwinConfig(camera_port=0), link, other)
        self._process = context.Process(target=_run, args=arguments, name="twin")
        self.path, self.camera_port = "", 0

    def open(self) -> None:
        """Starts it; raises what it refused."""
        self._process.start()
        self.path, self.camera_port = self._receive(_LONGEST_START_S)

    def state(self) -> TwinState:
        return self._ask("state")

    def unplug(self) -> None:
        """Takes the port away, for good."""
        self._ask("unplug")

    def freeze_cameras(self, is_frozen: bool = True) -> None:
        self._ask("freeze", is_frozen)

    def close(self) -> None:
        """Ends it; a second call does nothing."""
        if self._process.is_alive():
            self._pipe.send(("close",))
            self._process.join(_LONGEST_ANSWER_S)
            self._process.kill()
        self._pipe.close()

    def _ask(self, *question: Any) -> Any:
        self._pipe.send(question)
        return self._receive(_LONGEST_ANSWER_S)

    def _receive(self, seconds: float) -> Any:
        try:
            answer = self._pipe.recv() if self._pipe.poll(seconds) else None
        except EOFError:
            answer = None
        if isinstance(answer, VlaError):
            raise answer
        if answer is None:
            raise RobotError(f"the process of the twin gave no answer within {seconds:.0f} s")
        return answer

    def __enter__(self) -> TwinProcess:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(
    calibration: dict[str, Calibration], config: TwinConfig, link: Path | None, pipe: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        twin = So101Twin(calibration, config, link)
        twin.open()
    except VlaError as error:
        pipe.send(error)
        return
    try:
        pipe.send((twin.path, twin.cameras.port if twin.cameras else 0))
        while True:
            match pipe.recv():
                case ("state",):
                    pipe.send(_state(twin))
                case ("unplug",):
                    twin.unplug()
                    pipe.send(True)
                case ("freeze", is_frozen):
                    if twin.cameras is not None:
                        twin.cameras.freeze(is_frozen)
                    pipe.send(True)
                case _:
                    return
    except EOFError:  # whoever started it is gone
        return
    finally:
        twin.close()


def _state(twin: So101Twin) -> TwinState:
    counts = {name: int(value) for name, value in vars(twin.bus.counts).items()}
    enabled = tuple(servo.is_enabled for servo in twin.servos)
    return TwinState(twin.arm.joints, twin.arm.tool_position, enabled, counts)
