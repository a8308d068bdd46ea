"""One policy through episodes of one environment: the outcome of each, and why it failed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol, cast

import numpy as np

from vla.control.schedule import Schedule, SchedulerSettings
from vla.control.schedulers import make_scheduler
from vla.errors import ActionError, ConfigError, PolicyError, VlaError
from vla.evaluation.episode import Episode, Failure
from vla.evaluation.latency import Timeline
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

    def close(self) -> None:
        """Frees what the environment holds."""
        ...


class BatchPolicy(Policy, Protocol):
    """A policy that can also answer several observations in one forward pass."""

    def act_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """Returns one chunk per observation."""
        ...


class InstructionSplit(Enum):
    """Which wordings of a task are used."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(kw_only=True)
class ScenesConfig:
    """Which scenes a policy meets, and what is asked of it there."""

    episodes: int = 100  # one per seed
    seed: int = 1_000_000  # of the first episode, the next has seed + 1; demonstrations use seeds below 1000000
    # wording of the instructions; null = as the environment is configured
    instruction_split: InstructionSplit | None = None
    # same scenes, but the words name another object, which then is the one to handle
    swap_instruction: bool = False
    black_image: bool = False  # the policy gets black pictures: what it achieves blind
    gripper_pause: bool = True  # the arm stands for one action when the gripper turns
    ensemble_decay: float = (
        0.01  # ACT's m: weight exp(-m i), i = 0 for the oldest (temporal_ensemble)
    )

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes must be at least 1; got {self.episodes}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more; got {self.seed}")
        if self.ensemble_decay < 0:
            raise ConfigError(f"ensemble_decay must be 0 or more; got {self.ensemble_decay}")

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


@dataclass(kw_only=True)
class RolloutConfig(ScenesConfig):
    """What is asked of the policy, and when its answers arrive."""

    latency_ms: float = 0.0  # from an observation to its chunk, on the simulated clock
    scheduler: Schedule = Schedule.SYNCHRONOUS  # how chunks are carried out

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.latency_ms <= 10_000:
            raise ConfigError(f"latency_ms must lie in [0, 10000]; got {self.latency_ms}")

    def timeline(self, spec: ActionSpec, execute_steps: int) -> Timeline:
        """Returns the timeline of a new episode; `execute_steps` limits the actions used of one chunk (0 = all)."""
        settings = SchedulerSettings(
            spec=spec,
            execute_steps=execute_steps,
            gripper_pause=self.gripper_pause,
            ensemble_decay=self.ensemble_decay,
        )
        return Timeline(make_scheduler(self.scheduler, settings), spec, 1e-3 * self.latency_ms)


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
    rollout = _Rollout(env, policy.action_spec, config, execute_steps, on_frame)
    _run([rollout], policy, [seed], lambda observations: [policy.act(observations[0])])
    return rollout.outcome


def run_together(
    envs: Sequence[Env],
    policy: Policy,
    config: RolloutConfig,
    seeds: Sequence[int],
    *,
    execute_steps: int = 0,
    on_frames: Sequence[OnFrame | None],
) -> list[Episode]:
    """Returns the outcomes of several episodes run side by side, each forward pass serving all that wait for a chunk.

    Arguments and errors are those of `run_episode`, one environment and one seed per episode. The policy is reset
    once, with the first seed, so it must not keep anything from one observation to the next.
    """
    if not hasattr(policy, "act_batch"):
        raise ConfigError(
            f"{type(policy).__name__} answers one observation at a time; use batch_size=1"
        )
    rollouts = [
        _Rollout(env, policy.action_spec, config, execute_steps, on_frame)
        for env, on_frame in zip(envs, on_frames, strict=True)
    ]
    _run(rollouts, policy, seeds, cast(BatchPolicy, policy).act_batch)
    return [rollout.outcome for rollout in rollouts]


def _run(
    rollouts: Sequence[_Rollout],
    policy: Policy,
    seeds: Sequence[int],
    ask: Callable[[list[Observation]], list[ActionChunk]],
) -> None:
    policy.reset(seeds[0])
    for rollout, seed in zip(rollouts, seeds, strict=True):
        rollout.start(seed)
    while waiting := [rollout for rollout in rollouts if rollout.observation is not None]:
        observations = [cast(Observation, rollout.observation) for rollout in waiting]
        started = time.perf_counter()
        try:
            chunks = ask(observations)
        except Exception as error:  # noqa: BLE001 - whatever a policy raises must not count as its failure
            for rollout in waiting:
                rollout.fail(error)
            continue
        seconds = (time.perf_counter() - started) / len(waiting)
        for rollout, chunk in zip(waiting, chunks, strict=True):
            rollout.advance(chunk, seconds)


class _Rollout:
    """One episode while it runs.

    Attributes:
        observation: what the policy must answer next; None when the episode is over.
        outcome: the episode's outcome once it is over.
        steps: actions executed so far.
    """

    def __init__(
        self,
        env: Env,
        spec: ActionSpec,
        config: RolloutConfig,
        execute_steps: int,
        on_frame: OnFrame | None,
    ) -> None:
        self._env, self._spec, self._config = env, spec, config
        self._execute_steps, self._on_frame = execute_steps, on_frame
        self._info: dict[str, Any] = {}
        self._instruction = ""
        self._probabilities: list[float] = []
        self._act_seconds: list[float] = []
        self._clipped_steps = 0
        self.steps = 0
        self.observation: Observation | None = None
        self.outcome: Episode

    def start(self, seed: int) -> None:
        """Resets the environment."""
        self._seed = seed
        try:
            raw, self._info = self._env.reset(seed=seed, options=self._config.reset_options())
            self._instruction = str(raw["instruction"])
            self._timeline = self._config.timeline(self._spec, self._execute_steps)
            self._see(raw)
            self._ask()
        except Exception as error:  # noqa: BLE001 - as in advance
            self.fail(error)

    def advance(self, chunk: ActionChunk, seconds: float) -> None:
        """Goes on with the chunk, which took `seconds` to predict, until the next is wanted or the episode ends."""
        self._act_seconds.append(seconds)
        try:
            self._timeline.answer(self._checked(chunk))
            self.observation = None
            while (action := self._timeline.step()) is not None:
                raw, _, terminated, truncated, self._info = self._env.step(action)
                self.steps += 1
                self._see(raw)
                if terminated or truncated:
                    self._finish()
                    return
            self._ask()
        except Exception as error:  # noqa: BLE001 - a crash of the simulator says nothing about the policy
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Ends the episode with an exception; raises it if policy and environment cannot work together at all."""
        if isinstance(error, VlaError) and not isinstance(error, ActionError) and self.steps == 0:
            raise error
        if isinstance(error, ActionError):
            failure, text, trace = Failure.SAFETY_STOP, str(error), ""
        else:
            failure, text = Failure.EXCEPTION, f"{type(error).__name__}: {error}"
            trace = "".join(traceback.format_exception(error))
        self.observation = None
        self.outcome = replace(self._so_far(), failure=failure.value, error=text, traceback=trace)

    def _finish(self) -> None:
        self.observation = None
        if self._info.get("is_success"):
            self.outcome = replace(self._so_far(), is_success=True)
        else:
            failure = Failure(self._info.get("failure") or Failure.TIMEOUT.value)
            self.outcome = replace(self._so_far(), failure=failure.value)

    def _so_far(self) -> Episode:
        """Returns what is known of the episode, neither successful nor failed."""
        return Episode(
            seed=self._seed,
            task=str(self._info.get("task", "")),
            instruction=self._instruction,
            target=str(self._info.get("target", "")),
            handled=str(self._info.get("handled", "")),
            steps=self.steps,
            clipped_steps=self._clipped_steps,
            confidence=float(np.mean(self._probabilities)) if self._probabilities else None,
            policy_ms=1000 * float(np.mean(self._act_seconds)) if self._act_seconds else 0.0,
        )

    def _see(self, raw: Mapping[str, Any]) -> None:
        if self._on_frame is not None:
            self._on_frame(raw)
        images: dict[str, ImageArray] = dict(raw["images"])
        if self._config.black_image:
            images = {name: np.zeros_like(image) for name, image in images.items()}
        self._seen = Observation(
            images=images,
            state=np.asarray(raw["state"], dtype=np.float32),
            instruction=str(raw["instruction"]),
        )

    def _ask(self) -> None:
        """Puts the present observation before the policy."""
        self.observation = replace(
            self._seen,
            captured_at_s=self._timeline.now_s,
            committed=self._timeline.committed(),
        )

    def _checked(self, chunk: ActionChunk) -> FloatArray:
        """Returns the chunk's actions (steps, width) within the limits of the ActionSpec."""
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != self._spec.width:
            raise PolicyError(
                f"the policy gave actions of shape {chunk.actions.shape}; expected (steps, {self._spec.width})"
            )
        limited = self._spec.clip(chunk.actions)
        count = self._execute_steps or len(limited)
        beyond = np.abs(limited - chunk.actions)[:count].max(axis=1) > 1e-6
        self._clipped_steps += int(beyond.sum())
        if chunk.probabilities is not None:
            self._probabilities.append(float(np.mean(chunk.probabilities[:count])))
        return limited
