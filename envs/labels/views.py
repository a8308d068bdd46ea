"""Where a labelled picture is taken from."""

from __future__ import annotations

import math

import numpy as np

from envs.cameras import FreeCamera
from envs.scene import Scene

# Ranges of uniform draws, by env.randomization; "none" looks as "train" does.
_AZIMUTH_TURN_DEG = {"none": 50.0, "train": 50.0, "hard": 75.0}
_ELEVATION_DEG = {"none": (-65.0, -32.0), "train": (-65.0, -32.0), "hard": (-72.0, -24.0)}
_FIELD_OF_VIEW_DEG = (24.0, 45.0)
_SHOWN_M = (0.17, 0.42)  # of the table, along the picture's shorter side; drawn on a log scale


def draw_camera(
    scene: Scene,
    weights: dict[str, float],
    randomization: str,
    aspect: float,
    rng: np.random.Generator,
) -> tuple[str, str | FreeCamera]:
    """Returns the name of a view and what takes it; `aspect` is width by height of the picture."""
    total = sum(weights.values())
    name = str(rng.choice(list(weights), p=[weight / total for weight in weights.values()]))
    zoom = draw_zoom(scene, randomization, aspect, rng)  # drawn in any case: one stream of numbers
    return name, zoom if name == "zoom" else name


def draw_zoom(
    scene: Scene,
    randomization: str,
    aspect: float,
    rng: np.random.Generator,
    shown_m: tuple[float, float] = _SHOWN_M,
    elevation_deg: tuple[float, float] | None = None,
) -> FreeCamera:
    """Returns a camera that looks at the objects from the far side of the table, at a random distance."""
    places = np.array([scene.object_position(slot) for slot in range(len(scene.objects))])
    one, middle = places[int(rng.integers(len(places)))], places.mean(axis=0)
    target = one + rng.uniform(0.3, 1.0) * (middle - one) + rng.normal(0.0, 0.02, 3) * (1, 1, 0)
    shown = math.exp(rng.uniform(math.log(shown_m[0]), math.log(shown_m[1])))
    opening = rng.uniform(*_FIELD_OF_VIEW_DEG)
    distance = 0.5 * shown / min(1.0, aspect) / math.tan(0.5 * math.radians(opening))
    turn = _AZIMUTH_TURN_DEG[randomization]
    return FreeCamera(
        target_m=(float(target[0]), float(target[1]), float(min(target[2], 0.06))),
        distance_m=distance,
        azimuth_deg=180.0 + rng.uniform(-turn, turn),
        elevation_deg=rng.uniform(*(elevation_deg or _ELEVATION_DEG[randomization])),
        field_of_view_deg=opening,
    )
