"""Makes the executed action differ from the expert's, so that demonstrations contain recoveries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla.errors import ConfigError
from vla.types import END_EFFECTOR_DELTA_7D


@dataclass(kw_only=True)
class EnvNoise:
    """How far, how often and how long the arm is led astray."""

    step_std_m: float = 0.006  # Gaussian on each translation, every step
    step_std_rad: float = 0.03  # Gaussian on each rotation, every step
    push_probability: float = 0.04  # that a push begins, per step
    push_min_steps: int = 2
    push_max_steps: int = 4
    push_m: float = 0.03  # length of each step of a push, in a random direction
    push_rad: float = 0.1  # and its turn about a random axis
    gripper_probability: float = (
        0.3  # that a push also turns the gripper command around, for its first step
    )

    def __post_init__(self) -> None:
        if not 1 <= self.push_min_steps <= self.push_max_steps:
            raise ConfigError(
                f"push_min_steps is {self.push_min_steps} and push_max_steps {self.push_max_steps}; "
                "expected 1 <= min <= max"
            )


class Perturbation:
    """Adds Gaussian noise to every action and now and then a push of several steps; a pure function of its rng."""

    def __init__(self, noise: EnvNoise | None = None) -> None:
        self._noise = noise or EnvNoise()
        self.reset()

    def reset(self) -> None:
        """Forgets a push under way; call at the start of an episode."""
        self._steps_left = 0
        self._push = np.zeros(6)
        self._flips_gripper = False

    def perturb(self, action: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Returns the action (7,) to execute in place of `action` (7,); within the action's limits."""
        noise = self._noise
        executed = action.astype(np.float64)
        if self._steps_left == 0 and rng.random() < noise.push_probability:
            self._begin_push(rng)
        if self._steps_left > 0:
            executed[:6] = self._push
            self._steps_left -= 1
            if self._flips_gripper:
                executed[6] = 1.0 - executed[6]
                self._flips_gripper = False
        executed[:3] += rng.normal(0.0, noise.step_std_m, 3)
        executed[3:6] += rng.normal(0.0, noise.step_std_rad, 3)
        return END_EFFECTOR_DELTA_7D.clip(executed)

    def _begin_push(self, rng: np.random.Generator) -> None:
        noise = self._noise
        self._steps_left = int(rng.integers(noise.push_min_steps, noise.push_max_steps + 1))
        shift, turn = rng.normal(size=3), rng.normal(size=3)
        self._push[:3] = noise.push_m * shift / np.linalg.norm(shift)
        self._push[3:] = noise.push_rad * turn / np.linalg.norm(turn)
        self._flips_gripper = bool(rng.random() < noise.gripper_probability)
