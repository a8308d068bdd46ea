"""Settings of inverse kinematics, apart from the solver so that they are read without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vla.errors import ConfigError


class Priority(Enum):
    """What counts when the tool cannot be both where and how it should be."""

    POSITION = "position"  # the tool gets there, turned as far as that permits
    BALANCED = "balanced"  # 0.1 rad wrong is as bad as 0.01 m wrong
    ORIENTATION = "orientation"  # the tool is turned so, as near as that permits


@dataclass(kw_only=True)
class InverseKinematicsConfig:
    """How a tool pose becomes joints."""

    priority: Priority = Priority.POSITION  # what gives way last
    max_iterations: int = 20  # quadratic programs per pose; each takes about 0.3 ms
    tolerance_m: float = 1e-4  # a step that changes the tool by less ends the search
    damping: float = (
        1e-6  # m^2 per rad^2 of joint steps: keeps them small where the arm is stretched out
    )

    def __post_init__(self) -> None:
        if self.max_iterations < 1 or self.tolerance_m <= 0 or self.damping <= 0:
            raise ConfigError(
                "inverse kinematics needs max_iterations of 1 or more and a positive tolerance_m and damping; got "
                f"{self.max_iterations}, {self.tolerance_m} and {self.damping}"
            )
