"""From a chunk that was predicted for an earlier instant to the actions that carry it on from here.

A chunk says where the policy wants to be one, two, three actions after the observation. Its relative actions (deltas)
say so only for an arm that has carried out the chunk from its first action on. While the policy thought, other actions
were carried out. Simply leaving out the first deltas of the new chunk loses every correction in them: an arm that is
1 cm off gets a chunk that begins with that centimetre, and drops it. So the deltas are taken as goals, counted from
where the tool was told to be at the observation, and the first action that is not past leads to its goal from wherever
the actions carried out meanwhile have led. What exceeds the limits of one action goes into the following ones.

Absolute actions (the gripper) cannot be caught up on in this way: "close" may be past while the lift that relies on it
is not. When the gripper turns, the arm therefore stands for one action, and the rest of the chunk comes one later. So
it also does when the chunk itself, whose slots were decoded in parallel, lifts in the moment it closes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla.types import ActionSpec, FloatArray

_FloatRows = NDArray[np.float64]


def continued(
    actions: FloatArray,
    begun: FloatArray,
    last: FloatArray | None,
    spec: ActionSpec,
    has_pause: bool,
) -> FloatArray:
    """Returns the chunk as it is to be carried out: what has begun since its observation, then the way to its goals.

    Args:
        actions: (steps, width) the chunk.
        begun: (past, width) the actions begun since its observation.
        last: (width,) the newest action begun, also from before the observation; None when there was none.
        spec: of the actions.
        has_pause: the arm stands for one action when the gripper turns.

    Rotation vectors are added up: exact for turns about one axis, off by half their cross product otherwise.
    """
    index = len(begun)
    if index >= len(actions):
        return actions
    relative = np.asarray(spec.is_relative)
    rows: _FloatRows = np.array(actions, dtype=np.float64)
    ahead = rows[:index, relative].sum(axis=0) - begun[:, relative].sum(axis=0)
    rows[:index] = begun
    rows[index, relative] += ahead
    rows = _within_limits(rows, index, spec)
    if last is not None and has_pause and len(rows) > 1:  # after a single action comes a new look
        rows = _with_pauses(rows, index, last, spec)
    return rows.astype(np.float32)


def blended(
    old: FloatArray, new: FloatArray, weights: NDArray[np.float64], spec: ActionSpec
) -> FloatArray:
    """Returns (steps, width) actions whose goals are between those of two ways from the same place.

    Args:
        old: (steps_old, width).
        new: (steps, width).
        weights: (shared,) of the old way's goals, from the first action on; later actions are the new way's.
        spec: of the actions. Of absolute ones the heavier counts.
    """
    shared = min(len(old), len(new), len(weights))
    if not shared:
        return new
    relative = np.asarray(spec.is_relative)
    weight = weights[:shared, None]
    rows: _FloatRows = np.array(new, dtype=np.float64)
    goals: _FloatRows = np.cumsum(rows[:, relative], axis=0)
    old_goals: _FloatRows = np.cumsum(old[:shared, relative], axis=0, dtype=np.float64)
    goals[:shared] = weight * old_goals + (1 - weight) * goals[:shared]
    rows[:, relative] = np.diff(goals, axis=0, prepend=0.0)
    rows[:shared, ~relative] = np.where(
        weight >= 0.5, old[:shared, ~relative], rows[:shared, ~relative]
    )
    return _within_limits(rows, 0, spec).astype(np.float32)


def _with_pauses(rows: _FloatRows, index: int, last: FloatArray, spec: ActionSpec) -> _FloatRows:
    """Returns the rows with standstills before every action from `index` on in which an absolute dimension turns."""
    middle = np.add(spec.low, spec.high) / 2
    absolute = ~np.asarray(spec.is_relative)
    result, before = list(rows[:index]), np.asarray(last, dtype=np.float64)
    for row in rows[index:]:
        if ((row > middle) != (before > middle))[absolute].any():
            result.append(np.where(absolute, row, 0.0))
        result.append(row)
        before = row
    return np.array(result)


def _within_limits(rows: _FloatRows, index: int, spec: ActionSpec) -> _FloatRows:
    """Returns the rows with what is beyond a limit carried over into the next, from `index` on."""
    relative = np.asarray(spec.is_relative)
    low, high = np.asarray(spec.low)[relative], np.asarray(spec.high)[relative]
    over = np.zeros(int(relative.sum()))
    for row in rows[index:]:
        wanted = row[relative] + over
        row[relative] = np.clip(wanted, low, high)
        over = wanted - row[relative]
    return rows
