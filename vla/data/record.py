"""One demonstration: an expert labels every state while something else may move the arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.data.layout import ACTION, ENVIRONMENT_STATE, EXECUTED_ACTION, STATE
from vla.data.staging import Episode
from vla.types import FloatArray

GROUNDED_CAMERAS = ("front", "wrist")  # whose pixels `observation.environment_state` holds
NOT_VISIBLE = (-1.0, -1.0)


class Expert(Protocol):
    """Knows the right action in any state of the environment it was made for."""

    def reset(self, rng: np.random.Generator) -> None: ...

    def act(self) -> FloatArray: ...


class Env(Protocol):
    """gymnasium's `reset` and `step`, with a simulation underneath that knows where the named object is."""

    @property
    def unwrapped(self) -> Any: ...

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]: ...

    def step(self, action: FloatArray) -> tuple[Any, Any, bool, bool, dict[str, Any]]: ...


Perturb = Callable[[FloatArray, np.random.Generator], FloatArray]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A recorded episode and how it ended; `failure` is "" after a success."""

    episode: Episode
    is_success: bool
    failure: str


def record_attempt(
    env: Env,
    expert: Expert,
    perturb: Perturb,
    *,
    seed: int,
    options: dict[str, Any],
    record: dict[str, Any],
) -> Attempt:
    """Returns one episode, fully determined by its arguments.

    The recorded `action` is the expert's answer to the state in the picture; `action.executed` is what moved the arm.
    Where the two differ the data show how to recover, and labels stay right (DART, Laskey et al. 2017).

    Args:
        perturb: turns the expert's action into the executed one; made anew for every episode.
        record: remembered with the episode.
    """
    observation, info = env.reset(seed=seed, options=options)
    rng = np.random.default_rng((seed, len(options)))
    expert.reset(rng)
    images: dict[str, list[Any]] = {name: [] for name in observation["images"]}
    vectors: dict[str, list[Any]] = {
        key: [] for key in (STATE, ACTION, EXECUTED_ACTION, ENVIRONMENT_STATE)
    }
    is_over = False
    while not is_over:
        label = expert.act()
        executed = perturb(label, rng)
        for name, image in observation["images"].items():
            images[name].append(image)
        vectors[STATE].append(observation["state"])
        vectors[ACTION].append(label)
        vectors[EXECUTED_ACTION].append(executed)
        vectors[ENVIRONMENT_STATE].append(grounding_vector(env.unwrapped.grounding()))
        observation, _, terminated, truncated, info = env.step(executed)
        is_over = terminated or truncated
    episode = Episode(
        images={name: np.stack(pictures) for name, pictures in images.items()},
        vectors={key: np.stack(rows).astype(np.float32) for key, rows in vectors.items()},
        task=str(observation["instruction"]),
        record={**record, "target": str(info.get("target", ""))},
    )
    return Attempt(
        episode=episode, is_success=bool(info["is_success"]), failure=str(info.get("failure", ""))
    )


def grounding_vector(grounding: Any) -> FloatArray:
    """Returns (7,) float32: named object minus tool centre in metres, then (u, v) per camera, -1 where not visible."""
    pixels = [
        np.clip(grounding.pixels[name], 0.0, 1.0) if grounding.visible[name] else NOT_VISIBLE
        for name in GROUNDED_CAMERAS
    ]
    return np.concatenate([grounding.target_from_tool, *pixels]).astype(np.float32)
