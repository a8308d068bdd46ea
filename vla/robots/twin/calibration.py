"""LeRobot's calibration files: where they are, what is in them, and one for an arm built to its drawings."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from vla.errors import RobotError
from vla.robots import so101
from vla.robots.twin.servo import COUNTS_PER_TURN, Calibration

_DRIVER_FOLDER = "so_follower"  # LeRobot's name of the class that drives SO-100 and SO-101


def calibration_path(robot_id: str, folder: Path | None = None) -> Path:
    """Returns where LeRobot looks for the calibration of the follower arm called `robot_id`."""
    if folder is not None:
        return folder / f"{robot_id}.json"
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "lerobot"
    root = Path(os.environ.get("HF_LEROBOT_HOME", home)) / "calibration"
    root = Path(os.environ.get("HF_LEROBOT_CALIBRATION", root)).expanduser()
    return root / "robots" / _DRIVER_FOLDER / f"{robot_id}.json"


def as_drawn() -> dict[str, Calibration]:
    """Returns the calibration of an arm whose ranges are those of the model, each around the middle of the encoder."""
    entries: dict[str, Calibration] = {}
    for number, (name, link) in enumerate(zip(so101.MOTORS, so101.LINKS, strict=True), start=1):
        if (
            name == "wrist_roll"
        ):  # turns all the way round: LeRobot's calibration gives it the whole encoder
            low, high = 0, COUNTS_PER_TURN - 1
        else:
            half = (link.range[1] - link.range[0]) / 2 * COUNTS_PER_TURN / 6.283185307
            low, high = round(2047.5 - half), round(2047.5 + half)
        offset = 37 * number - 120  # motors are mounted on whichever tooth of the spline
        entries[name] = Calibration(id=number, homing_offset=offset, range_min=low, range_max=high)
    return entries


def load(path: Path) -> dict[str, Calibration]:
    """Returns the calibration in `path`; raises RobotError when it is not one of an SO-101."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = {name: Calibration(**content[name]) for name in so101.MOTORS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RobotError(
            f"{path} is no calibration of an SO-101 ({type(error).__name__}: {error}); expected id, drive_mode, "
            f"homing_offset, range_min and range_max of {', '.join(so101.MOTORS)}"
        ) from error
    return entries


def save(path: Path, entries: dict[str, Calibration]) -> None:
    """Writes the file as LeRobot does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: asdict(entry) for name, entry in entries.items()}, indent=4)
    path.write_text(text, encoding="utf-8")
