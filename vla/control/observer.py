"""A drive as somebody who only looks on sees it: recent motion, chunks, deadlines, holds, and how near the limits are.

Runs in a process of its own beside the control loop; everything here is read from shared memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.board import Word
from vla.control.channel import Message
from vla.control.feed import Feed, ShownHold
from vla.control.limits import JointLimits
from vla.control.log import Mode
from vla.control.messages import Links
from vla.control.report import HISTOGRAM_EDGES_MS
from vla.types import ActionSpec, FloatArray

WINDOW_S = 10.0  # of motion that is kept
_POINTS_PER_S = 20  # of motion that is shown
_MAX_CHUNKS = 64
_SHOWN_CHUNKS = 3

Rows = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class SeenChunk:
    """A chunk as it went to the control process."""

    sequence: int
    episode: int
    captured_at_s: float
    actions: FloatArray
    probabilities: FloatArray | None


@dataclass(frozen=True, kw_only=True)
class BegunAction:
    """One action that the arm began to carry out: when, and (width,) what."""

    time_s: float
    episode: int
    action: FloatArray


class DriveObserver:
    """Keeps what is needed to show and to record a drive. Call `poll` often; nothing here waits."""

    def __init__(
        self, links: Links, feed: Feed, limits: JointLimits, spec: ActionSpec, period_s: float
    ) -> None:
        self._links, self._feed, self._limits, self._spec = links, feed, limits, spec
        self._period_s = period_s
        self._blocks: deque[Rows] = deque()
        self._states: deque[tuple[float, FloatArray]] = deque(maxlen=int(WINDOW_S * _POINTS_PER_S))
        self.chunks: dict[int, SeenChunk] = {}
        self._counts: NDArray[np.int64] = np.zeros(len(HISTOGRAM_EDGES_MS), np.int64)
        self._began_s = self._last_s = 0.0
        self._ticks = self._misses = 0
        self._max_lateness_ms = 0.0
        self._last = (-1, 0)  # episode and consumed of the last row
        self._hold: ShownHold | None = None

    @property
    def num_lost_ticks(self) -> int:
        """Ticks that were overwritten before they could be looked at."""
        return self._feed.ticks.num_lost

    @property
    def episode(self) -> int:
        """Number of the episode of the newest tick; -1 before the first."""
        return self._last[0]

    def poll(self) -> list[BegunAction]:
        """Takes what is new and returns the actions that began, oldest first."""
        self._take_chunks()
        self._hold = self._feed.read_hold() or self._hold
        rows = self._feed.ticks.read_new()
        if not len(rows["time_s"]):
            return []
        self._count(rows)
        self._blocks.append(rows)
        while self._blocks[0]["time_s"][-1] < self._last_s - WINDOW_S:
            self._blocks.popleft()
        return self._begun(rows)

    def note_state(self, captured_at_s: float, state: FloatArray) -> None:
        """Takes a measured tool pose (7,) to be shown beside what the tool was told."""
        self._states.append((captured_at_s, state))

    def seconds_since(self, time_s: float) -> float:
        """Returns how long before the newest tick an instant was."""
        return self._last_s - time_s

    def state(self) -> dict[str, Any]:
        """Returns everything the page shows, in plain values; times are seconds before the newest tick."""
        window = self._window()
        if window is None:
            return {"mode": "START", "has_begun": False}
        newest = {name: column[-1] for name, column in window.items()}
        board = self._links.board
        age_s = float(newest["action_age_s"])
        return {
            "has_begun": True,
            "mode": Mode(int(newest["mode"])).name,
            "elapsed_s": self._last_s - self._began_s,
            "episode": int(newest["episode"]),
            "policy_alive": bool(board[Word.POLICY_ALIVE]),
            "is_stopping": bool(board[Word.STOP]),
            "emergency_stop": board[Word.EMERGENCY_STOP] > board[Word.EMERGENCY_RESET],
            "action_age_ms": 1e3 * age_s if np.isfinite(age_s) else None,
            "motion": self._motion(window),
            "measured": self._measured(),
            "chunks": self._plans(window),
            "deadlines": self._deadlines(window),
            "holds": self._holds(Mode(int(newest["mode"]))),
            "limits": self._nearest(window),
            "lost_ticks": self.num_lost_ticks,
        }

    # ---- taking note -----------------------------------------------------------------------------------------------

    def _take_chunks(self) -> None:
        while (message := self._links.chunks.read_next()) is not None:
            if message.integer("steps"):
                self._keep_chunk(message)

    def _keep_chunk(self, message: Message) -> None:
        steps = message.integer("steps")
        probabilities = message["probabilities"][:steps].copy()
        self.chunks[message.sequence] = SeenChunk(
            sequence=message.sequence,
            episode=message.integer("episode"),
            captured_at_s=message.number("captured_at_s"),
            actions=message["actions"][:steps].copy(),
            probabilities=probabilities if np.isfinite(probabilities).all() else None,
        )
        while len(self.chunks) > _MAX_CHUNKS:
            self.chunks.pop(next(iter(self.chunks)))

    def _count(self, rows: Rows) -> None:
        lateness_s = rows["lateness_s"]
        if not self._ticks:
            self._began_s = float(rows["time_s"][0])
        self._ticks += len(lateness_s)
        self._misses += int((lateness_s > self._period_s).sum() + rows["skipped"].sum())
        self._max_lateness_ms = max(self._max_lateness_ms, 1e3 * float(lateness_s.max()))
        edges = [*HISTOGRAM_EDGES_MS, np.inf]
        self._counts += np.histogram(np.maximum(1e3 * lateness_s, 0.0), edges)[0]
        self._last_s = float(rows["time_s"][-1])

    def _begun(self, rows: Rows) -> list[BegunAction]:
        begun: list[BegunAction] = []
        counts = (rows[name].astype(np.int64).tolist() for name in ("episode", "consumed"))
        columns = zip(rows["time_s"].tolist(), *counts, rows["action"], strict=True)
        for time_s, episode, consumed, action in columns:
            before = self._last[1] if episode == self._last[0] else 0
            self._last = (episode, consumed)
            if consumed > before and np.isfinite(action).all():
                row = action.astype(np.float32)
                begun.append(BegunAction(time_s=time_s, episode=episode, action=row))
        return begun

    # ---- showing ---------------------------------------------------------------------------------------------------

    def _window(self) -> Rows | None:
        if not self._blocks:
            return None
        blocks = [*self._blocks]
        joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        recent = joined["time_s"] >= self._last_s - WINDOW_S
        return {name: column[recent] for name, column in joined.items()}

    def _motion(self, window: Rows) -> dict[str, Any]:
        """Returns where the tool was told to be: x, y, z (m) and the gripper's opening."""
        step = max(1, round(1 / (_POINTS_PER_S * self._period_s)))
        places = np.arange(len(window["time_s"]) - 1, -1, -step)[::-1]
        values = np.column_stack([window["tool"][places], window["gripper"][places]])
        return {
            "t": _rounded(window["time_s"][places] - self._last_s, 3),
            "values": [_rounded(column, 4) for column in values.T],
            "episodes": window["episode"][places].astype(int).tolist(),
        }

    def _measured(self) -> dict[str, Any]:
        recent = [(t, state) for t, state in self._states if t >= self._last_s - WINDOW_S]
        return {
            "t": _rounded(np.array([t - self._last_s for t, _ in recent]), 3),
            "values": [_rounded(np.array([state[i] for _, state in recent]), 4) for i in range(3)],
        }

    def _plans(self, window: Rows) -> list[dict[str, Any]]:
        """Returns the newest chunks of this episode as the way they meant the tool to go."""
        ours = [chunk for chunk in self.chunks.values() if chunk.episode == self.episode]
        plans: list[dict[str, Any]] = []
        for chunk in ours[-_SHOWN_CHUNKS:]:
            at = int(np.searchsorted(window["time_s"], chunk.captured_at_s - 1e-6))
            start = window["tool"][min(at, len(window["tool"]) - 1)]
            offsets = np.arange(len(chunk.actions) + 1) * self._spec.dt_s
            points = start + np.vstack([np.zeros(3), np.cumsum(chunk.actions[:, :3], axis=0)])
            grip = np.append(chunk.actions[0, -1], chunk.actions[:, -1])
            chances = chunk.probabilities
            plans.append(
                {
                    "sequence": chunk.sequence,
                    "t": _rounded(chunk.captured_at_s + offsets - self._last_s, 3),
                    "values": [_rounded(column, 4) for column in (*points.T, grip)],
                    "bits": None
                    if chances is None
                    else [_rounded(_bits(row), 2) for row in chances],
                }
            )
        return plans

    def _deadlines(self, window: Rows) -> dict[str, Any]:
        lateness_ms = 1e3 * window["lateness_s"]
        p50, p99 = np.percentile(lateness_ms, [50, 99]).tolist()
        return {
            "ticks": self._ticks,
            "misses": self._misses,
            "rate_hz": 1 / self._period_s,
            "p50_ms": p50,
            "p99_ms": p99,
            "max_ms": self._max_lateness_ms,
            "work_p99_ms": float(np.percentile(1e3 * window["work_s"], 99)),
            "edges_ms": list(HISTOGRAM_EDGES_MS),
            "counts": self._counts.tolist(),
        }

    def _holds(self, mode: Mode) -> dict[str, Any]:
        hold = self._hold
        if hold is None:
            return {"total": 0, "counts": {}, "last": None}
        return {
            "total": sum(hold.counts.values()),
            "counts": hold.counts,
            "last": {
                "check": hold.check,
                "message": hold.message,
                "began_s_ago": self.seconds_since(hold.began_at_s),
                "is_now": mode is Mode.HOLD,
            },
        }

    def _nearest(self, window: Rows) -> list[dict[str, Any]]:
        """Returns the joint nearest to its end now, and the fastest one of the window, as shares of the limit."""
        low, high = np.asarray(self._limits.low), np.asarray(self._limits.high)
        middle, half = (low + high) / 2, (high - low) / 2
        position = np.abs(window["command"][-1] - middle) / half
        speed = np.abs(np.diff(window["command"], axis=0, prepend=window["command"][:1]))
        is_new_scene = np.diff(window["episode"], prepend=window["episode"][:1]) != 0
        speed[is_new_scene] = 0.0
        share = (speed / self._period_s / np.asarray(self._limits.velocity)).max(axis=0)
        return [
            {
                "kind": kind,
                "joint": self._limits.names[int(row.argmax())],
                "share": float(row.max()),
            }
            for kind, row in (("position", position), ("speed", share))
        ]


def _bits(probabilities: FloatArray) -> NDArray[np.float64]:
    """Returns -log2 p: of the likeliest bin this is the min-entropy of the bins, 0 sure, 8 any of 256."""
    return -np.log2(np.clip(probabilities.astype(np.float64), 2.0**-16, 1.0)) + 0.0


def _rounded(values: NDArray[Any], digits: int) -> list[float]:
    return np.round(values.astype(np.float64), digits).tolist()
