"""The simulated tabletop: importing this package registers its environments with Gymnasium under `vla/`."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

import gymnasium
import gymnasium.vector

if TYPE_CHECKING:
    from envs.base import TabletopEnv
    from envs.config import EnvConfig

__all__ = ["ENVIRONMENT_IDS", "make", "make_vector"]

ENVIRONMENT_IDS = {
    "vla/Reach-v0": "reach",
    "vla/PickCube-v0": "pick_cube",
    "vla/PlaceInBowl-v0": "place_in_bowl",
    "vla/Push-v0": "push",
    "vla/Stack-v0": "stack",
    "vla/OpenDrawer-v0": "open_drawer",
    "vla/Tabletop-v0": "tabletop",
}


def _choose_renderer() -> None:
    """Picks an off-screen renderer that is there. MuJoCo reads the choice once, when it is first imported."""
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ or "DISPLAY" in os.environ:
        return
    for name, library in (("egl", "libEGL.so.1"), ("osmesa", "libOSMesa.so.8")):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        os.environ["MUJOCO_GL"] = name
        return


_choose_renderer()


def make(config: EnvConfig | None = None) -> TabletopEnv:
    """Returns the environment `config` describes."""
    from envs.base import TabletopEnv

    return TabletopEnv(config)


def make_vector(
    config: EnvConfig | None = None, num_envs: int = 1
) -> gymnasium.vector.AsyncVectorEnv:
    """Returns `num_envs` environments, each in its own process.

    Worker processes start afresh: a fork of a process that has rendered hangs in the graphics driver. Observations
    travel by pipe: Gymnasium's shared memory never updates text (1.4).
    """
    return gymnasium.vector.AsyncVectorEnv(
        [functools.partial(make, config)] * num_envs, shared_memory=False, context="spawn"
    )


def _make_registered(render_mode: str | None = "rgb_array", **fields: Any) -> TabletopEnv:
    """Entry point of the registered ids; `fields` are those of EnvConfig."""
    from envs.base import TabletopEnv
    from envs.config import EnvConfig

    return TabletopEnv(EnvConfig(**fields), render_mode=render_mode)


for _id, _task in ENVIRONMENT_IDS.items():
    gymnasium.register(id=_id, entry_point=_make_registered, kwargs={"task": _task})
