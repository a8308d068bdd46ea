"""`vla twin`: an arm that is not there, on a port that a real driver opens."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from vla.errors import ConfigError
from vla.robots.twin.so101_twin import TwinConfig

logger = logging.getLogger(__name__)


class TwinName(Enum):
    """Which arm."""

    SO101 = "so101"


@dataclass(kw_only=True)
class TwinRun:
    """One twin."""

    name: TwinName = TwinName.SO101  # which arm
    id: str = "so101"  # whose calibration is in its motors
    calibration_dir: str = ""  # folder of LeRobot's calibration files; empty: LeRobot's own
    link: str = ""  # a path that leads to the port, whose own name changes from run to run
    seconds: float = 0.0  # ends by itself after this long; 0 = on Ctrl-C
    twin: TwinConfig = field(
        default_factory=TwinConfig
    )  # what it is like and what is wrong with it

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise ConfigError(f"seconds must be 0 (until Ctrl-C) or more; got {self.seconds}")


def run(cfg: TwinRun, directory: Path) -> dict[str, Any]:
    """Opens the twin, prints how to drive it, serves until told to stop, and returns what went over the line."""
    from vla.robots.twin import calibration
    from vla.robots.twin.so101_twin import So101Twin

    folder = Path(cfg.calibration_dir) if cfg.calibration_dir else None
    file = calibration.calibration_path(cfg.id, folder)
    if not file.is_file():
        file = directory / f"{cfg.id}.json"  # not beside the files of real arms
        calibration.save(file, calibration.as_drawn())
    twin = So101Twin(calibration.load(file), cfg.twin, Path(cfg.link) if cfg.link else None)
    finished = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: finished.set())
    twin.open()
    try:
        print(_how_to_drive(cfg, twin, file), flush=True)
        finished.wait(cfg.seconds or None)
    except KeyboardInterrupt:
        logger.info("stopping")
    finally:
        twin.close()
    return {"port": twin.path, "calibration": str(file), "packets": vars(twin.bus.counts)}


def _how_to_drive(cfg: TwinRun, twin: Any, file: Path) -> str:
    from vla.robots.twin import calibration

    words = [f"vla deploy robot={cfg.name.value} port={twin.path}"]
    words += [f"robot.id={cfg.id}"] if cfg.id != "so101" else []
    is_default = file == calibration.calibration_path(cfg.id)
    words += [] if is_default else [f"robot.calibration_dir={file.parent}"]
    if twin.cameras is not None and twin.cameras.port != 5555:
        cameras = ",".join(
            f"'{name}=zmq://127.0.0.1:{twin.cameras.port}/{name}?width={cfg.twin.camera_width}"
            f"&height={cfg.twin.camera_height}&fps={round(cfg.twin.camera_fps)}'"
            for name in cfg.twin.cameras
        )
        words.append(f'"robot.cameras=[{cameras}]"')
    cameras = f", cameras at 127.0.0.1:{twin.cameras.port}" if twin.cameras is not None else ""
    return f"port {twin.path}{cameras}\n{' '.join(words)}"
