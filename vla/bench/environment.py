"""How fast an environment steps and resets, in processor time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.types import FloatArray


class Expert(Protocol):
    """Acts from the simulation's hidden state."""

    def reset(self, rng: np.random.Generator) -> None: ...

    def act(self) -> FloatArray: ...


@dataclass(kw_only=True)
class EnvironmentReport:
    """Rates of one environment with its expert at work, pictures included."""

    steps_per_cpu_second: float
    reset_cpu_ms: float
    episodes: int


def measure_environment(
    env: Any, expert: Expert, *, steps: int, seed: int = 0
) -> EnvironmentReport:
    """Returns the rates of a gymnasium environment over at least `steps` steps of whole episodes."""
    stepping = resetting = 0.0
    done_steps = episodes = 0
    env.reset(seed=seed)  # compiles the scene and opens the renderer
    while done_steps < steps:
        begun = time.process_time()
        env.reset(seed=seed + episodes)
        expert.reset(np.random.default_rng(seed + episodes))
        resetting += time.process_time() - begun
        episodes += 1
        ended = False
        while not ended:
            action = expert.act()
            begun = time.process_time()
            _, _, terminated, truncated, _ = env.step(action)
            stepping += time.process_time() - begun
            done_steps += 1
            ended = terminated or truncated
    return EnvironmentReport(
        steps_per_cpu_second=done_steps / stepping,
        reset_cpu_ms=1e3 * resetting / episodes,
        episodes=episodes,
    )
