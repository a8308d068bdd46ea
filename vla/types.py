"""What flows between a robot and a policy: observations, actions and who may produce them. numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vla.errors import ActionError

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """Meaning and limits of one action vector: the only place where bounds, units and frame are written down."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    is_relative: tuple[
        bool, ...
    ]  # True: a change since the last action (rest is 0); False: an absolute target
    frame: str
    rate_hz: float

    def __post_init__(self) -> None:
        for name in (
            "names",
            "units",
            "low",
            "high",
            "is_relative",
        ):  # JSON and OmegaConf hand back lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        columns = (self.names, self.units, self.low, self.high, self.is_relative)
        lengths = sorted({len(column) for column in columns})
        if len(lengths) != 1:
            raise ActionError(
                "an ActionSpec needs one name, unit, low, high and is_relative per dimension; "
                f"got lengths {lengths}"
            )

    @property
    def width(self) -> int:
        return len(self.names)

    @property
    def dt_s(self) -> float:
        return 1.0 / self.rate_hz

    def clip(self, action: NDArray[Any]) -> FloatArray:
        """Returns `action` (..., width) limited to [low, high]; raises ActionError when a value is not finite."""
        self._check_shape_and_finite(action)
        return np.clip(action, self.low, self.high).astype(np.float32)

    def check(self, action: NDArray[Any], tolerance: float = 1e-6) -> FloatArray:
        """Returns `action` (..., width) as float32; raises ActionError naming dimension, value, limit and unit."""
        self._check_shape_and_finite(action)
        low, high = np.asarray(self.low), np.asarray(self.high)
        outside = (action < low - tolerance) | (action > high + tolerance)
        if outside.any():
            dim = int(np.argwhere(outside)[0][-1])
            value = float(action[tuple(np.argwhere(outside)[0])])
            raise ActionError(
                f"action {self.names[dim]} = {value:.4g} {self.units[dim]} is outside "
                f"[{self.low[dim]:.4g}, {self.high[dim]:.4g}]; clip it or correct the policy"
            )
        return np.asarray(action, dtype=np.float32)

    def rest(self, absolute: NDArray[Any]) -> FloatArray:
        """Returns the action (width,) that changes nothing: 0 where relative, else the given current value."""
        return np.where(self.is_relative, 0.0, absolute).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names), "units": list(self.units), "low": list(self.low), "high": list(self.high),
            "is_relative": list(self.is_relative), "frame": self.frame, "rate_hz": self.rate_hz,
        }  # fmt: skip

    def _check_shape_and_finite(self, action: NDArray[Any]) -> None:
        shape = np.shape(action)
        if not shape or shape[-1] != self.width:
            raise ActionError(
                f"an action has {self.width} numbers ({', '.join(self.names)}); got shape {shape}"
            )
        finite = np.isfinite(action)
        if not finite.all():
            dim = int(np.argwhere(~finite)[0][-1])
            raise ActionError(
                f"action {self.names[dim]} is not finite ({action[tuple(np.argwhere(~finite)[0])]})"
            )


END_EFFECTOR_DELTA_7D = ActionSpec(
    names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    units=("m", "m", "m", "rad", "rad", "rad", "1 open, 0 closed"),
    low=(-0.04, -0.04, -0.04, -0.2, -0.2, -0.2, 0.0),
    high=(0.04, 0.04, 0.04, 0.2, 0.2, 0.2, 1.0),
    is_relative=(True, True, True, True, True, True, False),
    frame="robot base: translation along its axes; rotation about its axes, applied after the current orientation",
    rate_hz=10.0,
)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a policy sees at one instant.

    Attributes:
        images: camera name to picture, (height, width, 3) uint8 RGB, row 0 at the top.
        state: proprioception (state width,) float32; names and units are the robot's.
        instruction: the task in words.
        captured_at_s: monotonic clock when the pictures were taken.
        committed: (steps, width) actions, the first of them the one that begins at this instant, that will have begun
            before an answer can arrive; a policy that can decodes its chunk given these. None or empty: none is known.
    """

    images: dict[str, ImageArray]
    state: FloatArray
    instruction: str
    captured_at_s: float = 0.0
    committed: FloatArray | None = None


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """Consecutive actions, the first meant for the instant of the observation.

    Attributes:
        actions: (steps, width) float32 in the units of the ActionSpec.
        captured_at_s: copied from the observation that led to it.
        probabilities: (steps, width) probability of each chosen bin, or None when the policy has no bins.
    """

    actions: FloatArray
    captured_at_s: float = 0.0
    probabilities: FloatArray | None = None


@runtime_checkable
class Policy(Protocol):
    """Turns observations into action chunks."""

    action_spec: ActionSpec
    camera_names: tuple[str, ...]

    def reset(self, seed: int | None = None) -> None:
        """Forgets everything about the last episode."""
        ...

    def act(self, observation: Observation) -> ActionChunk:
        """Returns at least one action; raises PolicyError when it cannot."""
        ...


@runtime_checkable
class Robot(Protocol):
    """An arm, simulated or real, driven at its own servo rate."""

    action_spec: ActionSpec
    camera_names: tuple[str, ...]

    def connect(self) -> None:
        """Opens the robot and brings it to its start pose; raises RobotError when it cannot be reached."""
        ...

    def observe(self) -> Observation:
        """Returns pictures and proprioception stamped at capture."""
        ...

    def command(self, target: NDArray[Any]) -> None:
        """Sends one servo target; its meaning is the robot's and stated in its class."""
        ...

    def hold(self) -> None:
        """Keeps the present position."""
        ...

    def close(self) -> None:
        """Leaves the arm safe and frees the connection."""
        ...


@dataclass(frozen=True, kw_only=True)
class StateSpec:
    """Names and units of the proprioception vector."""

    names: tuple[str, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "units", tuple(self.units))

    @property
    def width(self) -> int:
        return len(self.names)


TOOL_POSE_7D = StateSpec(
    names=("x", "y", "z", "roll", "pitch", "yaw", "grip_width"),
    units=("m", "m", "m", "rad", "rad", "rad", "m"),
)


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """One robot as a policy sees it: cameras, proprioception and actions under one name."""

    name: str
    camera_names: tuple[str, ...] = ("front", "wrist")
    state_spec: StateSpec = field(default_factory=lambda: TOOL_POSE_7D)
    action_spec: ActionSpec = field(default_factory=lambda: END_EFFECTOR_DELTA_7D)


TABLETOP = Embodiment(name="tabletop")
