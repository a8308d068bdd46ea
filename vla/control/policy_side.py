"""The other side of the channels: looks at snapshots, asks the policy, sends chunks, and starts new episodes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from vla.control.board import Word
from vla.control.channel import Message
from vla.control.clock import Clock
from vla.control.messages import MAX_CHUNK_STEPS, Links, chunk_fields
from vla.errors import ConfigError, PolicyError
from vla.types import ActionChunk, FloatArray, Observation

_POLL_S = 0.001
# A snapshot is taken when an action begins. Answering one that has been lying about would only give a chunk that is
# late for two actions instead of one; the next comes with the next action, or at once when the arm is waiting.
_FRESH_S = 0.03


@dataclass(kw_only=True)
class FaultConfig:
    """Faults to inject, so that what they cause can be seen before they happen by themselves. 0 = never."""

    stall_policy_at_s: float = (
        0.0  # the policy process sleeps, once, this long after the first action
    )
    stall_policy_for_s: float = 0.0  # how long it sleeps
    kill_policy_at_s: float = (
        0.0  # the policy process dies (SIGKILL) this long after the first action
    )
    nan_every: int = 0  # every n-th chunk has a number that is not finite
    drop_every: int = 0  # every n-th chunk is lost

    def __post_init__(self) -> None:
        for name in (
            "stall_policy_at_s",
            "stall_policy_for_s",
            "kill_policy_at_s",
            "nan_every",
            "drop_every",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"faults.{name} must be 0 (never) or more; got {getattr(self, name)}"
                )
        if self.stall_policy_for_s > 0 and self.stall_policy_at_s <= 0:
            raise ConfigError(
                "faults.stall_policy_for_s needs faults.stall_policy_at_s: when to begin, s"
            )


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


class PolicySide:
    """Plays episodes one after the other over the links; owns no process and no clock of its own."""

    def __init__(self, player: Player, links: Links, faults: FaultConfig, clock: Clock) -> None:
        self._player, self._links, self._faults, self._clock = player, links, faults, clock
        self._episode = -1
        self._num_chunks = self._chunk_length = 0  # length of the last chunk
        self._first_answer_s: float | None = None
        self._sent_s = float("-inf")
        self._has_stalled = False
        self.answer_times_s: list[float] = []

    def start(self) -> None:
        """Sets the first scene up, which lets the control loop begin: the policy is ready."""
        self._begin_episode()

    def run(self, is_abandoned: Callable[[], bool]) -> None:
        """Answers snapshots on a real clock until the board says stop or `is_abandoned()`."""
        while not self._links.board[Word.STOP] and not is_abandoned():
            snapshot = self._links.snapshots.read_new()
            if snapshot is None:
                self._sleep(_POLL_S)
                continue
            chunk = self.answer(snapshot, self._sleep)
            if chunk is not None:
                self.send(chunk)

    def send(self, chunk: dict[str, Any]) -> None:
        """Publishes a chunk of `answer`."""
        self._links.chunks.publish(**chunk)
        self._sent_s = self._clock.now()

    def answer(self, snapshot: Message, sleep: Callable[[float], None]) -> dict[str, Any] | None:
        """Returns the fields of the chunk for a snapshot, or None when there is nothing to send.

        That is so when an answer would come too late to be of use, when the scheduler wants none, when the episode has
        ended (then the next one is begun), and when an injected fault loses the chunk. `sleep` gets the seconds of an
        injected stall.
        """
        if not self._is_worth_answering(snapshot):
            return None
        began_s = self._clock.now()
        observation = self._player.observe(snapshot)
        if self._player.outcome():
            self._end_episode(snapshot)
            return None
        if not snapshot.integer("wants_chunk"):
            return None
        looked_s = self._clock.now() - began_s
        self._inject_before(sleep)
        began_s = self._clock.now()
        committed = snapshot["committed"][: snapshot.integer("num_committed")].copy()
        chunk = self._player.act(replace(observation, committed=committed))
        actions = self._inject_into(chunk.actions)
        self.answer_times_s.append(looked_s + self._clock.now() - began_s)
        return None if actions is None else chunk_fields(snapshot, actions, chunk.probabilities)

    def _is_worth_answering(self, snapshot: Message) -> bool:
        captured_at_s = snapshot.number("captured_at_s")
        age_s = self._clock.now() - captured_at_s
        if snapshot.integer("episode") != self._episode or age_s > _FRESH_S:
            return False
        if self._chunk_length != 1:
            return True
        # A single action answers an arm that waits for it. While one is carried out, or is still on its way to the arm,
        # another answer would be past before it arrives.
        return bool(snapshot.integer("is_waiting")) and captured_at_s > self._sent_s

    def _sleep(self, seconds: float) -> None:
        self._clock.sleep_until(self._clock.now() + seconds)

    def _begin_episode(self) -> None:
        fields = self._player.begin_episode()
        self._episode += 1
        self._links.scenes.publish(episode=self._episode, **fields)

    def _end_episode(self, snapshot: Message) -> None:
        """Tells the arm to rest while the next scene is set up."""
        nothing = np.zeros((0, self._links.chunks.layout["actions"].shape[1]))
        self._links.chunks.publish(**chunk_fields(snapshot, nothing))
        self._begin_episode()

    def _inject_before(self, sleep: Callable[[float], None]) -> None:
        """Stalls or dies when it is time to."""
        now_s, faults = self._clock.now(), self._faults
        if self._first_answer_s is None:
            self._first_answer_s = now_s
        since_s = now_s - self._first_answer_s
        if faults.kill_policy_at_s and since_s >= faults.kill_policy_at_s:
            os.kill(os.getpid(), signal.SIGKILL)
        if (
            faults.stall_policy_for_s
            and since_s >= faults.stall_policy_at_s
            and not self._has_stalled
        ):
            self._has_stalled = True
            self._links.board[Word.STALL_BEGAN] = now_s
            sleep(faults.stall_policy_for_s)

    def _inject_into(self, actions: FloatArray) -> FloatArray | None:
        """Returns the actions as the control process is to get them; None when they are lost."""
        if not 1 <= len(actions) <= MAX_CHUNK_STEPS:
            raise PolicyError(
                f"the policy gave {len(actions)} actions in a chunk; expected 1 to {MAX_CHUNK_STEPS}"
            )
        self._num_chunks, self._chunk_length = self._num_chunks + 1, len(actions)
        if self._faults.drop_every and self._num_chunks % self._faults.drop_every == 0:
            return None
        if self._faults.nan_every and self._num_chunks % self._faults.nan_every == 0:
            actions = actions.copy()
            actions[0, 0] = np.nan
        return actions


# Seconds from a question to its answer: always the same, or by the question's number (0, 1, ...); None loses it.
Latency = float | Callable[[int], float | None]


class Lockstep:
    """Runs the policy's side between the ticks of a loop on a simulated clock: same inputs, same run, bit for bit."""

    def __init__(
        self,
        side: PolicySide,
        links: Links,
        clock: Clock,
        latency_s: Latency,
        max_in_flight: int = 1,
    ) -> None:
        """Takes how long answers take in simulated time, and how many may be under way, so that they can overtake."""
        self._side, self._links, self._clock = side, links, clock
        self._latency_s = latency_s
        self._max_in_flight = max_in_flight
        self._under_way: list[tuple[float, dict[str, Any]]] = []  # due when, answer
        self._num_asked = 0
        self._stall_s = 0.0

    def after_tick(self) -> None:
        """Sends an answer that is due by now, and starts on the newest snapshot when there is room for it."""
        has_sent = self._send_due()
        has_room = len(self._under_way) < self._max_in_flight
        snapshot = self._links.snapshots.read_new() if has_room else None
        if snapshot is not None:
            self._ask(snapshot)
        if not has_sent:  # a channel holds one chunk a tick
            self._send_due()

    def _send_due(self) -> bool:
        self._under_way.sort(key=lambda answer: answer[0])
        if not self._under_way or self._clock.now() < self._under_way[0][0] - _POLL_S:
            return False
        self._side.send(self._under_way.pop(0)[1])
        return True

    def _ask(self, snapshot: Message) -> None:
        now_s, self._stall_s = self._clock.now(), 0.0
        chunk = self._side.answer(snapshot, self._take_longer)
        if chunk is None:
            return
        latency_s = (
            self._latency_s(self._num_asked) if callable(self._latency_s) else self._latency_s
        )
        self._num_asked += 1
        if latency_s is not None:
            self._under_way.append((now_s + latency_s + self._stall_s, chunk))

    def _take_longer(self, seconds: float) -> None:
        self._stall_s += seconds
