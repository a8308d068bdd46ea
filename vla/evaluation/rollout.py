"""One policy through episodes of one environment: the outcome of each, and why it failed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np

from vla.errors import ActionError, ConfigError, PolicyError, VlaError
from vla.evaluation.latency import DelayLine
from vla.types import ActionChunk, ActionSpec, FloatArray, ImageArray, Observation, Policy


class Env(Protocol):
    """What an evaluation asks of an environment: gymnasium's `reset` and `step`."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Returns the first observation {"images", "state", "instruction"} and info."""
        ...

    def step(self, action: FloatArray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Returns observation, reward, terminated, truncated and info with is_success and failure."""
        ...


class Failure(Enum):
    """Why an episode did not succeed. An EXCEPTION says nothing about the policy and is never scored."""

    TIMEOUT = "timeout"
    DROPPED = "dropped"
    WRONG_OBJECT = "wrong_object"
    SAFETY_STOP = "safety_stop"  # a command that no robot could be sent: not finite
    EXCEPTION = "exception"


class InstructionSplit(Enum):
    """Which wordings of a task are used."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(kw_only=True)
class RolloutConfig:
    """What is asked of the policy."""

    episodes: int = 100  # one per seed
    seed: int = 1_000_000  # of the first episode, the next has seed + 1; demonstrations use seeds below 1000000
    # wording of the instructions; null = as the environment is configured
    instruction_split: InstructionSplit | None = None
    # same scenes, but the words name another object, which then is the one to handle
    swap_instruction: bool = False
    black_image: bool = False  # the policy gets black pictures: what it achieves blind
    # age of the observation behind every action, on the simulated clock; parts of a step are blended
    latency_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes must be at least 1; got {self.episodes}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more; got {self.seed}")
        if not 0 <= self.latency_ms <= 10_000:
            raise ConfigError(f"latency_ms must lie in [0, 10000]; got {self.latency_ms}")

    @property
    def seeds(self) -> range:
        """The seeds of the episodes, in order."""
        return range(self.seed, self.seed + self.episodes)

    def reset_options(self) -> dict[str, Any]:
        """Returns the options every episode's `reset` gets."""
        options: dict[str, Any] = {}
        if self.instruction_split is not None:
            options["instruction_split"] = self.instruction_split.value
        if self.swap_instruction:
            options["swap_instruction"] = True
        return options


@dataclass(frozen=True, kw_only=True)
class Episode:
    """What came of one seed.

    Attributes:
        failure: "" when it succeeded, else a value of Failure.
        handled: the object that was picked or moved in the end, "" when there was none or the task does not say.
        steps: actions executed.
        clipped_steps: actions that had to be brought within the limits of the ActionSpec.
        confidence: mean probability of the executed bins, None for a policy without bins.
        error: the exception's last line, "" otherwise.
        traceback: the exception's traceback, "" otherwise.
        policy_ms: mean time of one `act`, of this machine's clock; not part of equality.
    """

    seed: int
    task: str = ""
    instruction: str = ""
    target: str = ""
    is_success: bool = False
    failure: str = ""
    handled: str = ""
    steps: int = 0
    clipped_steps: int = 0
    confidence: float | None = None
    error: str = ""
    traceback: str = ""
    policy_ms: float = field(default=0.0, compare=False)

    @property
    def is_scored(self) -> bool:
        """Whether the outcome says something about the policy."""
        return self.failure != Failure.EXCEPTION.value

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values; the traceback stays out."""
        return {key: value for key, value in asdict(self).items() if key != "traceback"}


OnFrame = Callable[[Mapping[str, Any]], None]


def run_episode(
    env: Env,
    policy: Policy,
    config: RolloutConfig,
    seed: int,
    *,
    execute_steps: int = 0,
    on_frame: OnFrame | None = None,
) -> Episode:
    """Returns the outcome of one episode.

    Args:
        env: the environment.
        policy: the policy; it is reset with the episode's seed.
        config: what is asked of it.
        seed: of the scene and of the policy's random numbers.
        execute_steps: actions carried out of each chunk before the next is asked for; 0 = all.
        on_frame: called with every raw observation, for videos.

    Raises:
        VlaError: policy and environment do not fit together, seen at the first observation. An exception later on
            ends the episode as `Failure.EXCEPTION` instead.
    """
    rollout = _Rollout(env, policy, config, execute_steps, on_frame)
    try:
        return rollout.run(seed)
    except ActionError as error:
        return replace(
            rollout.episode(seed), failure=Failure.SAFETY_STOP.value, error=str(error)
        )
    except Exception as error:
        if isinstance(error, VlaError) and rollout.steps == 0:
            raise
        return replace(
            rollout.episode(seed),
            failure=Failure.EXCEPTION.value,
            error=f"{type(error).__name__}: {error}",
            traceback=traceback.format_exc(),
        )


class _Rollout:
    """The state of one episode while it runs, so that a crash can still tell how far it came."""

    def __init__(
        self,
        env: Env,
        policy: Policy,
        config: RolloutConfig,
        execute_steps: int,
        on_frame: OnFrame | None,
    ) -> None:
        self._env, self._policy, self._config = env, policy, config
        self._execute_steps, self._on_frame = execute_steps, on_frame
        self._spec: ActionSpec = policy.action_spec
        self._delay = DelayLine(self._spec, config.latency_ms)
        self._info: dict[str, Any] = {}
        self._instruction = ""
        self._probabilities: list[float] = []
        self._act_seconds: list[float] = []
        self._clipped_steps = 0
        self.steps = 0

    def run(self, seed: int) -> Episode:
        raw, self._info = self._env.reset(seed=seed, options=self._config.reset_options())
        self._instruction = str(raw["instruction"])
        self._policy.reset(seed)
        self._delay.reset(self._spec.rest(np.asarray(self._spec.high)))  # at rest, gripper open
        self._show(raw)
        while True:
            for action in self._ask(raw):
                raw, _, terminated, truncated, self._info = self._env.step(self._effective(action))
                self.steps += 1
                self._show(raw)
                if terminated or truncated:
                    return self._finished(seed)

    def episode(self, seed: int) -> Episode:
        """Returns what is known of the episode so far, neither successful nor failed."""
        return Episode(
            seed=seed,
            task=str(self._info.get("task", "")),
            instruction=self._instruction,
            target=str(self._info.get("target", "")),
            handled=str(self._info.get("handled", "")),
            steps=self.steps,
            clipped_steps=self._clipped_steps,
            confidence=float(np.mean(self._probabilities)) if self._probabilities else None,
            policy_ms=1000 * float(np.mean(self._act_seconds)) if self._act_seconds else 0.0,
        )

    def _finished(self, seed: int) -> Episode:
        if self._info.get("is_success"):
            return replace(self.episode(seed), is_success=True)
        failure = Failure(self._info.get("failure") or Failure.TIMEOUT.value)
        return replace(self.episode(seed), failure=failure.value)

    def _ask(self, raw: Mapping[str, Any]) -> FloatArray:
        """Returns the actions (steps, width) to carry out before asking again."""
        observation = self._observation(raw)
        started = time.perf_counter()
        chunk = self._policy.act(observation)
        self._act_seconds.append(time.perf_counter() - started)
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != self._spec.width:
            raise PolicyError(
                f"the policy gave actions of shape {chunk.actions.shape}; expected (steps, {self._spec.width})"
            )
        count = self._execute_steps or len(chunk.actions)
        self._note_probabilities(chunk, count)
        return chunk.actions[:count]

    def _observation(self, raw: Mapping[str, Any]) -> Observation:
        images: dict[str, ImageArray] = dict(raw["images"])
        if self._config.black_image:
            images = {name: np.zeros_like(image) for name, image in images.items()}
        return Observation(
            images=images,
            state=np.asarray(raw["state"], dtype=np.float32),
            instruction=str(raw["instruction"]),
            captured_at_s=self.steps * self._spec.dt_s,
        )

    def _effective(self, action: FloatArray) -> FloatArray:
        limited = self._spec.clip(action)
        self._clipped_steps += int(np.abs(limited - action).max() > 1e-6)
        return self._delay.push(limited)

    def _note_probabilities(self, chunk: ActionChunk, count: int) -> None:
        if chunk.probabilities is not None:
            self._probabilities.append(float(np.mean(chunk.probabilities[:count])))

    def _show(self, raw: Mapping[str, Any]) -> None:
        if self._on_frame is not None:
            self._on_frame(raw)

