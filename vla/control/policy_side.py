"""The other side of the channels: looks at snapshots, asks the policy, sends chunks, and starts new episodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.control.board import Word
from vla.control.channel import Message
from vla.control.clock import Clock
from vla.control.messages import MAX_CHUNK_STEPS, Links, chunk_fields
from vla.errors import ConfigError, PolicyError
from vla.types import ActionChunk, FloatArray, Observation

logger = logging.getLogger(__name__)

_POLL_S = 0.001


@dataclass(kw_only=True)
class FaultConfig:
    """Faults to inject, so that what they cause can be seen before they happen by themselves. 0 = never."""

    stall_policy_at_s: float = 0.0  # the policy process sleeps, once, this long after the first action
    stall_policy_for_s: float = 0.0  # how long it sleeps
    kill_policy_at_s: float = 0.0  # the policy process dies (SIGKILL) this long after the first action
    nan_every: int = 0  # every n-th chunk has a number that is not finite
    drop_every: int = 0  # every n-th chunk is lost

    def __post_init__(self) -> None:
        for name in ("stall_policy_at_s", "stall_policy_for_s", "kill_policy_at_s", "nan_every", "drop_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"faults.{name} must be 0 (never) or more; got {getattr(self, name)}")
        if self.stall_policy_for_s > 0 and self.stall_policy_at_s <= 0:
            raise ConfigError("faults.stall_policy_for_s needs faults.stall_policy_at_s: when to begin, s")


class Player(Protocol):
    """A policy in its world: for a simulated robot the environment, for a real one the person who resets the scene."""

    def begin_episode(self) -> Mapping[str, Any]:
        """Starts the next episode and returns what the robot needs for it."""
        ...

    def observe(self, snapshot: Message) -> Observation:
        """Returns the observation of the instant that the snapshot captured."""
        ...

    def outcome(self) -> str:
        """Returns "" while the episode goes on, else how it ended, as of the last `observe`."""
        ...

    def act(self, observation: Observation) -> ActionChunk:
        """Returns the policy's chunk."""
        ...


@dataclass(frozen=True)
class Answer:
    """What is to be sent, and when at the earliest (an injected stall delays it)."""

    chunk: dict[str, Any] | None
    delay_s: float


class PolicySide:
    """Plays episodes one after the other over the links; owns no process and no clock of its own."""

    def __init__(self, player: Player, links: Links, faults: FaultConfig, clock: Clock) -> None:
        self._player, self._links, self._faults, self._clock = player, links, faults, clock
        self._episode = -1
        self._num_chunks = 0
        self._first_answer_s: float | None = None
        self._has_stalled = False
        self.answer_times_s: list[float] = []

    def start(self) -> None:
        """Sets the first scene up and says that the policy is ready."""
        self._begin_episode()
        self._links.board[Word.POLICY_READY] = 1

    def run(self, is_abandoned: Callable[[], bool]) -> None:
        """Answers snapshots on a real clock until the board says stop or `is_abandoned()`."""
        while not self._links.board[Word.STOP] and not is_abandoned():
            snapshot = self._links.snapshots.read_new()
            if snapshot is None:
                self._clock.sleep_until(self._clock.now() + _POLL_S)
                continue
            answer = self.answer(snapshot)
            if answer.chunk is not None:
                self._links.chunks.publish(**answer.chunk)

    def answer(self, snapshot: Message) -> Answer:
        """Returns the chunk for a snapshot, or none when it is of an earlier episode or its episode has ended."""
        if snapshot.integer("episode") != self._episode:
            return Answer(None, 0.0)
        began_s = self._clock.now()
        observation = self._player.observe(snapshot)
        outcome = self._player.outcome()
        if outcome:
            self._end_episode(snapshot, outcome)
            return Answer(None, 0.0)
        stall_s = self._stall(began_s)
        chunk = self._player.act(observation)
        actions = self._with_faults(chunk)
        self.answer_times_s.append(self._clock.now() - began_s)
        return Answer(None if actions is None else chunk_fields(snapshot.values, actions), stall_s)

    def _begin_episode(self) -> None:
        fields = self._player.begin_episode()
        self._episode += 1
        self._links.scenes.publish(episode=self._episode, **fields)

    def _end_episode(self, snapshot: Message, outcome: str) -> None:
        """Tells the arm to rest while the next scene is set up."""
        nothing = np.zeros((0, self._links.chunks.layout["actions"].shape[1]))
        self._links.chunks.publish(**chunk_fields(snapshot.values, nothing))
        board = self._links.board
        board[Word.EPISODES] = board[Word.EPISODES] + 1
        board[Word.SUCCESSES] = board[Word.SUCCESSES] + float(outcome == "success")
        self._begin_episode()

    def _stall(self, now_s: float) -> float:
        """Returns how long an injected stall delays this answer, s; on a real clock it sleeps here."""
        faults, first = self._faults, self._first_answer_s
        if first is None:
            self._first_answer_s = now_s
            return 0.0
        if self._has_stalled or not faults.stall_policy_for_s or now_s - first < faults.stall_policy_at_s:
            return 0.0
        self._has_stalled = True
        self._links.board[Word.STALL_BEGAN] = now_s
        logger.info("the policy now stalls for %.1f s, as asked for", faults.stall_policy_for_s)
        return faults.stall_policy_for_s

    def _with_faults(self, chunk: ActionChunk) -> FloatArray | None:
        actions, faults = chunk.actions, self._faults
        if len(actions) == 0 or len(actions) > MAX_CHUNK_STEPS:
            raise PolicyError(f"the policy gave {len(actions)} actions in a chunk; expected 1 to {MAX_CHUNK_STEPS}")
        self._num_chunks += 1
        if faults.drop_every and self._num_chunks % faults.drop_every == 0:
            return None
        if faults.nan_every and self._num_chunks % faults.nan_every == 0:
            actions = actions.copy()
            actions[0, 0] = np.nan
        return actions
