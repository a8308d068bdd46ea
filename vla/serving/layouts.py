"""From the keys that clients use to observations: each kind of client is one row of data.

Sources: openpi's libero_policy.py and droid_policy.py (keys of their inputs), deploy.py (image,
instruction) and LeRobot's feature names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vla.errors import ConfigError, ServingError, unknown_name
from vla.serving.arrays import shown
from vla.serving.card import PolicyCard
from vla.serving.config import LayoutConfig
from vla.types import FloatArray, ImageArray, Observation

MAX_INSTRUCTION_LENGTH = 1000
MAX_IMAGE_SIDE = 4096  # pixels

LAYOUTS: dict[str, LayoutConfig] = {
    "libero": LayoutConfig(
        images={"front": "observation/image", "wrist": "observation/wrist_image"},
        state=["observation/state"],
    ),
    "droid": LayoutConfig(
        images={
            "front": "observation/exterior_image_1_left",
            "wrist": "observation/wrist_image_left",
        },
        state=["observation/joint_position", "observation/gripper_position"],
    ),
    "plain": LayoutConfig(images={"front": "image", "wrist": "wrist_image"}, state=["state"]),
    "openvla": LayoutConfig(
        images={"front": "image", "wrist": "wrist_image"},
        state=["state"],
        instruction="instruction",
    ),
}


@dataclass(frozen=True)
class _Layout:
    """One row, cut down to what a policy needs."""

    name: str
    images: Mapping[str, str]
    state: tuple[str, ...]
    instruction: str

    @property
    def keys(self) -> list[str]:
        return [*self.images.values(), *self.state, self.instruction]


class ObservationReader:
    """Turns messages into observations of one policy, whichever layout they come in."""

    def __init__(self, card: PolicyCard, extra: Mapping[str, LayoutConfig] | None = None) -> None:
        """Takes the built-in layouts and `extra` ones; raises ConfigError when one of these lacks a camera."""
        self._card = card
        self._layouts = list(_fitting(card, {**_own(card), **LAYOUTS}))
        for name, layout in (extra or {}).items():
            missing = [camera for camera in card.camera_names if camera not in layout.images]
            if missing:
                raise ConfigError(
                    f"layouts.{name}.images has no {', '.join(missing)}; the policy sees {', '.join(card.camera_names)}"
                )
            self._layouts += _fitting(card, {name: layout})

    @property
    def keys_by_layout(self) -> dict[str, list[str]]:
        """Name of each layout that fits the policy, and the keys it needs."""
        return {layout.name: layout.keys for layout in self._layouts}

    def read(self, message: object) -> Observation:
        """Returns the observation in a message; further keys are ignored.

        Raises:
            ServingError: a key is missing, or its value is not a picture, numbers or text as expected.
        """
        if not isinstance(message, Mapping):
            raise ServingError(
                f"an observation is a map of names to values; got {type(message).__name__}"
            )
        values = cast(Mapping[str, Any], message)
        layout = self._best_layout(values)
        state = [_numbers(key, _find(values, key)) for key in layout.state]
        return Observation(
            images={
                camera: _picture(key, _find(values, key)) for camera, key in layout.images.items()
            },
            state=self._checked_state(layout, state),
            instruction=_instruction(layout.instruction, _find(values, layout.instruction)),
            captured_at_s=_instant(values.get("captured_at_s", 0.0)),
        )

    def check_unnorm_key(self, key: object) -> None:
        """Raises ServingError when an OpenVLA client asks for statistics that the policy does not have."""
        names = self._card.unnorm_keys
        if key is None and len(names) <= 1:
            return
        if not isinstance(key, str) or key not in names:
            given = key if isinstance(key, str) else shown(key)
            raise ServingError(unknown_name("unnorm_key", given[:80], names))

    def _best_layout(self, values: Mapping[str, Any]) -> _Layout:
        """Returns the layout that is complete, the one that names most where several are."""
        missing = {
            layout.name: [key for key in layout.keys if _find(values, key) is None]
            for layout in self._layouts
        }
        complete = [layout for layout in self._layouts if not missing[layout.name]]
        if complete:
            return max(complete, key=lambda layout: len(layout.keys))
        nearest = min(
            self._layouts, key=lambda layout: len(missing[layout.name]) / len(layout.keys)
        )
        names = [f"{layout.name} ({', '.join(layout.keys)})" for layout in self._layouts]
        raise ServingError(
            f"the observation lacks {', '.join(missing[nearest.name])} of layout {nearest.name}; it has "
            f"{_keys_text(values)}; the layouts are {'; '.join(names)}"
        )

    def _checked_state(self, layout: _Layout, parts: list[FloatArray]) -> FloatArray:
        state = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        spec = self._card.state_spec
        if state.shape != (spec.width,):
            raise ServingError(
                f"{' + '.join(layout.state)} has {len(state)} numbers; the policy takes {spec.width}: "
                f"{', '.join(f'{n} ({u})' for n, u in zip(spec.names, spec.units, strict=True))}"
            )
        return state


def _own(card: PolicyCard) -> dict[str, LayoutConfig]:
    """Returns the layouts that name cameras as the policy does: ours, and LeRobot's."""
    has_state = card.state_spec.width > 0
    return {
        "vla": LayoutConfig(
            images={camera: f"images/{camera}" for camera in card.camera_names},
            state=["state"] if has_state else [],
            instruction="instruction",
        ),
        "lerobot": LayoutConfig(
            images={camera: f"observation.images.{camera}" for camera in card.camera_names},
            state=["observation.state"] if has_state else [],
            instruction="task",
        ),
    }


def _fitting(card: PolicyCard, layouts: Mapping[str, LayoutConfig]) -> Iterable[_Layout]:
    """Yields those layouts that have all the policy's cameras, with these cameras alone."""
    for name, layout in layouts.items():
        if set(card.camera_names) <= set(layout.images):
            images = {camera: layout.images[camera] for camera in card.camera_names}
            state = tuple(layout.state) if card.state_spec.width else ()
            yield _Layout(name, images, state, layout.instruction)


def _find(values: Mapping[str, Any], key: str) -> Any:
    """Returns the value at a key, or on the path into maps that it describes, or None."""
    if key in values:
        return values[key]
    head, slash, rest = key.partition("/")
    inside = values.get(head)
    if slash and isinstance(inside, Mapping):
        return _find(cast(Mapping[str, Any], inside), rest)
    return None


def _picture(key: str, value: object) -> ImageArray:
    """Returns (height, width, 3) uint8; takes floats in [0, 1] and channels first as openpi's servers do."""
    if not isinstance(value, np.ndarray):
        raise ServingError(f"{key} is {type(value).__name__}; expected a numpy array, a picture")
    image = cast(NDArray[Any], value)
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        image = image.transpose(1, 2, 0)
    if (
        image.ndim != 3
        or image.shape[2] != 3
        or not all(0 < n <= MAX_IMAGE_SIDE for n in image.shape)
    ):
        raise ServingError(
            f"{key} has shape {cast(NDArray[Any], value).shape}; expected (height, width, 3) RGB, sides up to "
            f"{MAX_IMAGE_SIDE}"
        )
    if image.dtype.kind == "f":
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise ServingError(
                f"{key} is {image.dtype} outside [0, 1]; send uint8, or floats in [0, 1]"
            )
        image = np.rint(255 * image.astype(np.float32))
    elif image.dtype != np.uint8:
        raise ServingError(f"{key} is {image.dtype}; expected uint8, or floats in [0, 1]")
    return np.ascontiguousarray(image, dtype=np.uint8)


def _numbers(key: str, value: object) -> FloatArray:
    is_list = isinstance(value, list) and all(
        isinstance(item, (int, float)) for item in cast(list[Any], value)
    )
    is_array = isinstance(value, (np.ndarray, np.generic, int, float))
    if not (is_list or is_array) or np.ndim(cast(Any, value)) > 1:
        raise ServingError(f"{key} is {_kind(value)}; expected one row of numbers")
    try:
        numbers = np.ravel(cast(Any, value)).astype(np.float64)
    except OverflowError:  # JSON has whole numbers of any length
        numbers = np.full(1, np.inf)
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():  # False for nan as well
        raise ServingError(f"{key} holds a number that is not finite as float32")
    return numbers.astype(np.float32)


def _instruction(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ServingError(f"{key} is {shown(value)}; expected the task in words")
    if len(value) > MAX_INSTRUCTION_LENGTH:
        raise ServingError(
            f"{key} has {len(value)} characters; at most {MAX_INSTRUCTION_LENGTH} are taken"
        )
    return value


def _instant(value: object) -> float:
    if isinstance(value, (int, float)) and abs(value) < 1e15:
        return float(value)
    raise ServingError(f"captured_at_s is {shown(value)}; expected seconds on the client's clock")


def _kind(value: Any) -> str:
    shape = f" of shape {value.shape}" if hasattr(value, "shape") else ""
    return f"{type(value).__name__}{shape}"


def _keys_text(values: Mapping[str, Any]) -> str:
    names: list[str] = []
    for key, value in list(values.items())[:20]:
        inside = list(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else []
        names += [f"{key}/{name}" for name in inside[:20]] or [key]
    return ", ".join(name[:60] for name in names) or "nothing"
