"""The whole twin: servos, arm, pseudo-terminal and cameras in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vla.errors import ConfigError
from vla.robots import so101
from vla.robots.twin.arm import ServoArm
from vla.robots.twin.bus import LineFaults, ServoBus
from vla.robots.twin.camera import CameraServer, CameraSettings
from vla.robots.twin.port import TwinPort
from vla.robots.twin.servo import BAUD_RATES, Calibration, Servo

_SHOW_EVERY_S = 0.01  # the cameras see where the arm was at most this long ago


@dataclass(kw_only=True)
class TwinConfig:
    """How the twin is built and what is wrong with it."""

    reply_latency_ms: float = (
        2.0  # from an instruction to its first reply; real adapters take 2 to 3
    )
    baud: int = BAUD_RATES[0]  # line speed that the motors are set to
    missing: list[str] = field(default_factory=list[str])  # motors that are not there
    faults: LineFaults = field(default_factory=LineFaults)  # trouble on the line
    cameras: list[str] = field(default_factory=lambda: ["front", "wrist"])  # which are served
    camera_port: int = 5555  # on 127.0.0.1; 0 = a free one
    camera_width: int = 224  # pixels
    camera_height: int = 224  # pixels
    camera_fps: float = 10.0  # frames per second
    start_joints: list[float] = field(
        default_factory=lambda: list(so101.PARKED_JOINTS)
    )  # rad, where the arm stands at power-up

    def __post_init__(self) -> None:
        if self.reply_latency_ms < 0 or self.camera_fps <= 0:
            raise ConfigError(
                f"reply_latency_ms must be 0 or more and camera_fps positive; got {self.reply_latency_ms} and "
                f"{self.camera_fps}"
            )
        if self.baud not in BAUD_RATES:
            raise ConfigError(f"baud is {self.baud}; motors know {', '.join(map(str, BAUD_RATES))}")
        unknown = sorted(set(self.missing) - set(so101.MOTORS))
        if unknown:
            raise ConfigError(f"missing names {unknown}; the arm has {', '.join(so101.MOTORS)}")
        if len(self.start_joints) != len(so101.ARM_JOINTS):
            raise ConfigError(f"start_joints needs {len(so101.ARM_JOINTS)} angles in rad")


class So101Twin:
    """An SO-101 that is not there: open it, give `path` to a driver, close it."""

    def __init__(
        self, calibration: Mapping[str, Calibration], config: TwinConfig, link: Path | None = None
    ) -> None:
        servos = [Servo(calibration[name], baud=config.baud) for name in so101.MOTORS]
        self.arm = ServoArm(servos, joints=config.start_joints)
        present = [
            servo
            for name, servo in zip(so101.MOTORS, servos, strict=True)
            if name not in config.missing
        ]
        self.bus = ServoBus(present, config.faults)
        self.cameras: CameraServer | None = None
        if config.cameras:
            settings = CameraSettings(
                names=tuple(config.cameras),
                port=config.camera_port,
                width=config.camera_width,
                height=config.camera_height,
                fps=config.camera_fps,
            )
            self.cameras = CameraServer(settings)
        self._shown_s = 0.0
        latency_s = 1e-3 * config.reply_latency_ms
        self._port = TwinPort(self.bus, self._advance, reply_latency_s=latency_s, link=link)

    @property
    def path(self) -> str:
        """What to give to a driver as its port."""
        return self._port.path

    @property
    def servos(self) -> Sequence[Servo]:
        return self.arm.servos

    def open(self) -> None:
        """Begins to show, in a process of its own, and to answer, in a thread."""
        if self.cameras is not None:
            self.cameras.start()
        self._port.start()

    def close(self) -> None:
        """Takes everything away; a second call does nothing."""
        self._port.stop()
        if self.cameras is not None:
            self.cameras.stop()

    def unplug(self) -> None:
        """Takes the port away while the driver is using it."""
        self._port.stop()

    def _advance(self, now_s: float) -> None:
        self.arm.advance(now_s)
        if self.cameras is not None and now_s - self._shown_s >= _SHOW_EVERY_S:
            self._shown_s = now_s
            self.cameras.show(self.arm.joints)

    def __enter__(self) -> So101Twin:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
