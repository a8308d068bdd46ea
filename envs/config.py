"""Settings of a tabletop environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from envs.cameras import CAMERAS
from envs.instructions import SPLITS
from envs.randomize import STRENGTHS
from envs.tasks import TASKS
from vla.errors import ConfigError, unknown_name


@dataclass(kw_only=True)
class EnvConfig:
    """Which task, what the pictures are like and how much varies between episodes."""

    task: str = "pick_cube"  # one of envs.tasks.TASKS
    image_size: int = 64  # pixels, square
    cameras: list[str] = field(
        default_factory=lambda: list(CAMERAS)
    )  # an empty list renders nothing: faster
    randomization: str = (
        "train"  # none | train | hard: light, cameras, table, start pose, distractors
    )
    instruction_split: str = "train"  # train | held_out: which paraphrases are spoken
    max_steps: int | None = (
        None  # policy steps before an episode is cut; None takes the task's own limit
    )

    def __post_init__(self) -> None:
        self.cameras = [str(camera) for camera in self.cameras]
        for kind, value, choices in (
            ("task", self.task, TASKS),
            ("randomization", self.randomization, STRENGTHS),
            ("instruction_split", self.instruction_split, SPLITS),
            *(("camera", camera, CAMERAS) for camera in self.cameras),
        ):
            if value not in choices:
                raise ConfigError(unknown_name(kind, value, choices))
        if not 16 <= self.image_size <= 1024:
            raise ConfigError(f"image_size is {self.image_size}; expected 16 to 1024 pixels")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(
                f"max_steps is {self.max_steps}; expected at least 1, or null for the task's own limit"
            )
