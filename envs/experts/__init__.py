"""Scripted experts: they read the simulation's state and say what a good demonstrator would do next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.base import TabletopEnv
from envs.experts.carry import place_in_bowl, stack
from envs.experts.drawer import open_drawer
from envs.experts.perturbation import EnvNoise, Perturbation
from envs.experts.pick import pick, reach
from envs.experts.push import push
from envs.scene import Scene
from envs.tasks.task import Goal
from vla.errors import ConfigError

__all__ = ["EXPERTS", "EnvNoise", "Expert", "Perturbation", "make_expert"]

EXPERTS: dict[str, Callable[[Scene, Goal], NDArray[np.float32]]] = {
    "reach": reach,
    "pick_cube": pick,
    "place_in_bowl": place_in_bowl,
    "push": push,
    "stack": stack,
    "open_drawer": open_drawer,
}


class Expert(Protocol):
    """Says what to do in the environment it was made for."""

    def reset(self, rng: np.random.Generator | None = None) -> None:
        """Starts a new episode."""
        ...

    def act(self) -> NDArray[np.float32]:
        """Returns the action (7,) for the environment's present state."""
        ...


def make_expert(env: gymnasium.Env) -> Expert:
    """Returns an expert for `env`, wrapped or not; in a mixture it follows the task of each episode."""
    base = env.unwrapped
    if not isinstance(base, TabletopEnv):
        raise ConfigError(f"experts exist for tabletop environments; got {type(base).__name__}")
    return _StateExpert(base)


class _StateExpert:
    """A function of the simulation's present state alone, without memory."""

    def __init__(self, env: TabletopEnv) -> None:
        self._env = env

    def reset(self, rng: np.random.Generator | None = None) -> None:
        del rng  # the experts here draw nothing

    def act(self) -> NDArray[np.float32]:
        return EXPERTS[self._env.task.name](self._env.scene, self._env.goal)
