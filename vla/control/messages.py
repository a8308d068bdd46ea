"""What the control process and the policy's side tell each other, and the bundle of channels that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.board import Board, SharedBoard
from vla.control.channel import Channel, Field, Layout, Message, SharedChannel
from vla.control.feed import SharedFeed
from vla.control.schedule import ChunkScheduler
from vla.types import END_EFFECTOR_DELTA_7D, ActionSpec

MAX_CHUNK_STEPS = 64

_INTEGER = Field(dtype="int64")

# Control to policy; the robot adds what it saw. A chunk names the snapshot it answers by its sequence number.
# `is_waiting` is 0 when an action begins at that instant, so that an answer can be used from its second action on.
# `wants_chunk` is 0 when an answer would be of no use, and `committed` holds the actions that will begin meanwhile.
SNAPSHOT: Layout = {
    "episode": _INTEGER,
    "captured_at_s": Field(),
    "is_waiting": _INTEGER,
    "wants_chunk": _INTEGER,
    "num_committed": _INTEGER,
    "committed": Field((MAX_CHUNK_STEPS, END_EFFECTOR_DELTA_7D.width), "float32"),
}
# Policy to control: a new episode; the robot adds what it needs to start it.
SCENE: Layout = {"episode": _INTEGER}


def chunk_layout(spec: ActionSpec) -> Layout:
    """Returns the layout of an action chunk; `steps` = 0 says that the episode is over and the arm should rest."""
    return {
        "episode": _INTEGER,
        "snapshot": _INTEGER,
        "captured_at_s": Field(),
        "steps": _INTEGER,
        "actions": Field((MAX_CHUNK_STEPS, spec.width), "float32"),
        "probabilities": Field((MAX_CHUNK_STEPS, spec.width), "float32"),
    }


def question_fields(scheduler: ChunkScheduler, base: int) -> dict[str, Any]:
    """Returns the fields of a snapshot, taken before action number `base`, that say what the scheduler asks for."""
    committed = scheduler.committed(base)[:MAX_CHUNK_STEPS]
    full = np.zeros((MAX_CHUNK_STEPS, END_EFFECTOR_DELTA_7D.width), dtype=np.float32)
    full[: len(committed)] = committed
    return {
        "wants_chunk": scheduler.wants_chunk(base),
        "num_committed": len(committed),
        "committed": full,
    }


def chunk_fields(
    snapshot: Message,
    actions: NDArray[np.floating],
    probabilities: NDArray[np.floating] | None = None,
) -> dict[str, Any]:
    """Returns the fields of a chunk, actions (steps, width), that answers `snapshot`.

    The probabilities of the chosen bins, of the same shape, are for onlookers; not a number where there are none.
    """
    chances = np.full((MAX_CHUNK_STEPS, actions.shape[1]), np.nan, dtype=np.float32)
    if probabilities is not None:
        chances[: len(probabilities)] = probabilities
    full = np.zeros(
        (MAX_CHUNK_STEPS, actions.shape[1]), dtype=np.float32
    )  # what is beyond `steps` is never read
    full[: len(actions)] = actions
    return {
        "episode": snapshot.integer("episode"),
        "snapshot": snapshot.sequence,
        "captured_at_s": snapshot.number("captured_at_s"),
        "steps": len(actions),
        "actions": full,
        "probabilities": chances,
    }


@dataclass(frozen=True)
class Links:
    """The three channels and the board, as one process sees them."""

    snapshots: Channel
    chunks: Channel
    scenes: Channel
    board: Board

    @classmethod
    def in_process(cls, robot_scene: Layout, robot_snapshot: Layout, spec: ActionSpec) -> Links:
        """Returns links within this process, for a simulated clock."""
        snapshots, chunks, scenes = (
            Channel(layout) for layout in _layouts(robot_scene, robot_snapshot, spec)
        )
        return cls(snapshots, chunks, scenes, Board())


class SharedLinks:
    """The links in shared memory, picklable for a process that is being started.

    The process that makes them unlinks them at the end; the others close theirs.
    """

    def __init__(self, robot_scene: Layout, robot_snapshot: Layout, spec: ActionSpec) -> None:
        self._channels = [
            SharedChannel(layout) for layout in _layouts(robot_scene, robot_snapshot, spec)
        ]
        self._board = SharedBoard()
        self.feed: SharedFeed | None = None  # set where somebody looks on

    @property
    def links(self) -> Links:
        snapshots, chunks, scenes = (shared.channel for shared in self._channels)
        return Links(snapshots, chunks, scenes, self._board.board)

    def close(self) -> None:
        for shared in self._shared:
            shared.close()

    def unlink(self) -> None:
        for shared in self._shared:
            shared.unlink()

    @property
    def _shared(self) -> list[SharedChannel | SharedBoard | SharedFeed]:
        feed = [] if self.feed is None else [self.feed]
        return [*self._channels, self._board, *feed]


def _layouts(
    robot_scene: Layout, robot_snapshot: Layout, spec: ActionSpec
) -> tuple[Layout, Layout, Layout]:
    return {**SNAPSHOT, **robot_snapshot}, chunk_layout(spec), {**SCENE, **robot_scene}
