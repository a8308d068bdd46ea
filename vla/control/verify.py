"""Looks at a finished run with fresh eyes: did any command, or the arm itself, leave the limits?

Nothing here shares code with the limiter: differences of what was sent, compared with the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.limits import JointLimits

_ROUNDING = 1e-6  # share of a limit, and rad: differences of float64 over a hundredth of a second
_MAX_LISTED = 10


@dataclass
class Violations:
    """Samples beyond a limit, and how close the run came to each.

    Attributes:
        count: samples beyond a limit, summed over joints, ticks and kinds.
        first: the first few, in words.
        peaks: for each kind, the largest share of its limit that was used (1 = at the limit).
        max_jerk: rad/s^3 per joint of the commands.
    """

    count: int = 0
    first: list[str] = field(default_factory=list[str])
    peaks: dict[str, float] = field(default_factory=dict[str, float])
    max_jerk: list[float] = field(default_factory=list[float])


def verify(rows: Mapping[str, NDArray[Any]], limits: JointLimits, period_s: float) -> Violations:
    """Returns the violations in a tick log.

    Commands are checked for finiteness, position, velocity, acceleration and, where a limit is published, jerk; the
    measured arm for position and velocity. Differences are taken between consecutive ticks of one segment. A segment
    ends with an episode or a missed deadline, and each begins at rest, so the step into its first command counts as
    well.
    """
    result = Violations()
    low, high = np.asarray(limits.low), np.asarray(limits.high)
    command, measured = rows["command"], rows["joints"]
    _count(
        result,
        "finite command",
        limits,
        (~np.isfinite(command)).astype(float) * 2,
        np.ones(len(low)),
        "",
    )
    middle, half = (low + high) / 2, (high - low) / 2
    _count(
        result,
        "commanded position",
        limits,
        np.abs(command - middle),
        half,
        "rad from the middle of its range",
    )
    _count(
        result,
        "measured position",
        limits,
        np.abs(measured - middle),
        half,
        "rad from the middle of its range",
    )
    _count(
        result,
        "measured velocity",
        limits,
        np.abs(rows["velocity"]),
        np.asarray(limits.rated_velocity or limits.velocity),
        "rad/s",
    )
    velocity, acceleration, jerk = _differences(command, rows["segment"], rows["start"], period_s)
    _count(
        result, "commanded velocity", limits, np.abs(velocity), np.asarray(limits.velocity), "rad/s"
    )
    _count(
        result,
        "commanded acceleration",
        limits,
        np.abs(acceleration),
        np.asarray(limits.acceleration),
        "rad/s^2",
    )
    if limits.jerk is not None:
        bounds = np.asarray(limits.jerk)
        _count(result, "commanded jerk", limits, np.abs(jerk), bounds, "rad/s^3")
    result.max_jerk = [float(value) for value in np.abs(jerk).max(axis=0, initial=0.0)]
    return result


def _differences(
    command: NDArray[Any], segment: NDArray[Any], start: NDArray[Any], period_s: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Returns velocity, acceleration and jerk (ticks, joints); before its first command a segment rests at `start`."""
    begins = np.ones(len(segment), dtype=bool)
    begins[1:] = segment[1:] != segment[:-1]
    before = np.where(begins[:, None], start, np.roll(command, 1, axis=0))
    velocity = (command - before) / period_s
    acceleration = (
        velocity - np.where(begins[:, None], 0.0, np.roll(velocity, 1, axis=0))
    ) / period_s
    jerk = (
        acceleration - np.where(begins[:, None], 0.0, np.roll(acceleration, 1, axis=0))
    ) / period_s
    return velocity, acceleration, jerk


def _count(
    result: Violations,
    kind: str,
    limits: JointLimits,
    values: NDArray[Any],
    bounds: NDArray[Any],
    unit: str,
) -> None:
    share = values / bounds
    beyond = ~(share <= 1 + _ROUNDING)  # also where not a number
    result.peaks[kind] = float(np.max(share, initial=0.0))
    result.count += int(beyond.sum())
    for tick, joint in np.argwhere(beyond)[: _MAX_LISTED - len(result.first)]:
        value, bound = float(values[tick, joint]), float(bounds[joint])
        result.first.append(
            f"tick {tick}: {kind} of {limits.names[joint]} is {value:.4f} {unit}, limit {bound:.4f}"
        )
