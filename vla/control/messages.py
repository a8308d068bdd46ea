"""What the control process and the policy's side tell each other, and the bundle of channels that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.board import Board, SharedBoard
from vla.control.channel import Channel, Field, Layout, Message, SharedChannel
from vla.types import ActionSpec

MAX_CHUNK_STEPS = 64

_INTEGER = Field(dtype="int64")

# Control to policy; the robot adds what it saw. A chunk names the snapshot it answers by its sequence number.
# `is_waiting` is 0 when an action begins at that instant, so that an answer can be used from its second action on.
SNAPSHOT: Layout = {"episode": _INTEGER, "captured_at_s": Field(), "is_waiting": _INTEGER}
# Policy to control: a new episode; the robot adds what it needs to start it.
SCENE: Layout = {"episode": _INTEGER}


def chunk_layout(spec: ActionSpec) -> Layout:
    """Returns the layout of an action chunk; `steps` = 0 says that the episode is over and the arm should rest."""
    return {
        "episode": _INTEGER,
        "snapshot": _INTEGER,
        "steps": _INTEGER,
        "actions": Field((MAX_CHUNK_STEPS, spec.width), "float32"),
    }


def chunk_fields(snapshot: Message, actions: NDArray[np.floating]) -> dict[str, Any]:
    """Returns the fields of a chunk, actions (steps, width), that answers `snapshot`."""
    full = np.zeros(
        (MAX_CHUNK_STEPS, actions.shape[1]), dtype=np.float32
    )  # what is beyond `steps` is never read
    full[: len(actions)] = actions
    return {
        "episode": snapshot.integer("episode"),
        "snapshot": snapshot.sequence,
        "steps": len(actions),
        "actions": full,
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

    @property
    def links(self) -> Links:
        snapshots, chunks, scenes = (shared.channel for shared in self._channels)
        return Links(snapshots, chunks, scenes, self._board.board)

    def close(self) -> None:
        for shared in (*self._channels, self._board):
            shared.close()

    def unlink(self) -> None:
        for shared in (*self._channels, self._board):
            shared.unlink()


def _layouts(
    robot_scene: Layout, robot_snapshot: Layout, spec: ActionSpec
) -> tuple[Layout, Layout, Layout]:
    return {**SNAPSHOT, **robot_snapshot}, chunk_layout(spec), {**SCENE, **robot_scene}
