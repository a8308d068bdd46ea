"""Settings of labelled scenes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from envs.scene_xml import NUM_SLOTS
from vla.errors import ConfigError, unknown_name

VIEWS = (
    "zoom",
    "front",
    "wrist",
)  # zoom: circles the table at random, near enough for small pictures
MIN_SIDE, MAX_SIDE = 32, 1024  # pixels
_MAX_FRAMES = 32


class Family(Enum):
    """What the pictures and questions of one set of scenes are made for."""

    STILL = "still"  # one picture, questions of every common kind
    DETAIL = "detail"  # the same, and questions decided by dots of a few pixels at 224
    WIDE = "wide"  # pictures of several proportions, and questions that need both ends or true proportions
    MOTION = "motion"  # clips, and questions that no single frame answers


DEFAULT_SIZES = {
    Family.STILL: ("96x96",),
    Family.DETAIL: ("224x224",),
    Family.WIDE: ("192x96", "192x108", "96x192", "128x128"),
    Family.MOTION: ("96x96",),
}


@dataclass(kw_only=True)
class SceneLabelsConfig:
    """What labelled scenes show; how much light, table and cameras vary is env.randomization."""

    family: Family = Family.STILL  # still | detail | wide | motion
    sizes: list[str] = field(
        default_factory=list
    )  # WIDTHxHEIGHT, drawn for each picture; empty = the family's own
    cameras: dict[str, float] = field(
        default_factory=lambda: {"zoom": 0.6, "front": 0.3, "wrist": 0.1}
    )  # how often each takes the picture
    max_objects: int = NUM_SLOTS  # at most this many cubes, cylinders and blocks
    min_frames: int = 4  # of a clip
    max_frames: int = 8

    def __post_init__(self) -> None:
        self.sizes = [str(size) for size in self.sizes] or list(DEFAULT_SIZES[self.family])
        for size in self.sizes:
            parse_size(size)
        for name, weight in self.cameras.items():
            if name not in VIEWS:
                raise ConfigError(unknown_name("camera", name, VIEWS))
            if not 0.0 <= weight < float("inf"):
                raise ConfigError(f"scene_labels.cameras.{name} is {weight}; expected 0 or more")
        if not sum(self.cameras.values()) > 0.0:
            raise ConfigError("scene_labels.cameras are all 0; give at least one a weight above 0")
        if not 1 <= self.max_objects <= NUM_SLOTS:
            raise ConfigError(
                f"scene_labels.max_objects is {self.max_objects}; expected 1 to {NUM_SLOTS}"
            )
        if not 2 <= self.min_frames <= self.max_frames <= _MAX_FRAMES:
            raise ConfigError(
                f"scene_labels: clips of {self.min_frames} to {self.max_frames} frames; expected "
                f"2 <= min_frames <= max_frames <= {_MAX_FRAMES}"
            )


def parse_size(text: str) -> tuple[int, int]:
    """Returns (height, width) of "WIDTHxHEIGHT".

    Raises:
        ConfigError: not of that form, or out of range.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise ConfigError(
            f"scene_labels.sizes has {text!r}; expected WIDTHxHEIGHT such as 192x96, "
            f"each {MIN_SIDE} to {MAX_SIDE} pixels"
        )
    return height, width
