"""What a run amounted to: deadlines, ages, holds and limits, from the tick log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.control.log import Mode

Rows = Mapping[str, NDArray[Any]]

HISTOGRAM_EDGES_MS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_AT_REST_RAD_S = 0.02


def deadline_facts(rows: Rows, period_s: float) -> dict[str, Any]:
    """Returns lateness percentiles, misses and a histogram.

    Lateness is how long after its absolute deadline a tick began. A deadline is missed when its tick began more
    than one period late, or never because that time had passed altogether.
    """
    lateness_ms, work_ms = 1e3 * rows["lateness_s"], 1e3 * rows["work_s"]
    late = int((rows["lateness_s"] > period_s).sum())
    skipped = int(rows["skipped"].sum())
    largest = _percentile(lateness_ms, 100)
    edges = [edge for edge in HISTOGRAM_EDGES_MS if edge < largest] + [largest]
    edges = edges if len(edges) > 1 else [0.0, 1.0]
    return {
        "ticks": len(lateness_ms),
        "misses": late + skipped,
        "p50_ms": _percentile(lateness_ms, 50),
        "p99_ms": _percentile(lateness_ms, 99),
        "p999_ms": _percentile(lateness_ms, 99.9),
        "max_ms": largest,
        "work_p50_ms": _percentile(work_ms, 50),
        "work_p99_ms": _percentile(work_ms, 99),
        "work_max_ms": _percentile(work_ms, 100),
        "lateness_histogram": {
            "edges_ms": edges,
            "counts": np.histogram(lateness_ms, edges)[0].tolist(),
        },
    }


def action_facts(rows: Rows, period_s: float) -> dict[str, Any]:
    """Returns the age of the observation behind the executed action, over all ticks that carried one out."""
    age_ms = 1e3 * rows["action_age_s"][rows["mode"] == Mode.MOVE]
    seconds = {mode.name.lower(): float((rows["mode"] == mode).sum()) * period_s for mode in Mode}
    return {
        "action_age_p50_ms": _percentile(age_ms, 50),
        "action_age_p99_ms": _percentile(age_ms, 99),
        "action_age_max_ms": _percentile(age_ms, 100),
        "seconds_by_mode": seconds,
    }


def stall_facts(rows: Rows, began_s: float, lasted_s: float) -> dict[str, Any]:
    """Returns how an injected stall of the policy was met.

    `held_after_ms` is the time until the first tick without an action in progress and `at_rest_after_ms` until no
    joint moved faster than 0.02 rad/s, both from the stall's beginning; `resumed_after_ms` is the time from its
    end until the arm carried out an action again. None: it did not happen before the end of the run.
    """
    time_s, mode = rows["time_s"], rows["mode"]
    speed = np.abs(rows["velocity"]).max(axis=1, initial=0.0)
    held = _first(time_s, (time_s >= began_s) & (mode != Mode.MOVE))
    rest = None if held is None else _first(time_s, (time_s >= held) & (speed < _AT_REST_RAD_S))
    resumed = _first(time_s, (time_s >= began_s + lasted_s) & (mode == Mode.MOVE))
    return {
        "stalled_for_s": lasted_s,
        "held_after_ms": None if held is None else 1e3 * (held - began_s),
        "at_rest_after_ms": None if rest is None else 1e3 * (rest - began_s),
        "resumed_after_ms": None if resumed is None else 1e3 * (resumed - began_s - lasted_s),
    }


def latency_facts(seconds: list[float]) -> dict[str, Any]:
    """Returns how long the policy's side took for its answers: pictures and inference."""
    milliseconds = 1e3 * np.asarray(seconds)
    return {
        "answers": len(seconds),
        "answer_p50_ms": _percentile(milliseconds, 50),
        "answer_p99_ms": _percentile(milliseconds, 99),
        "answer_max_ms": _percentile(milliseconds, 100),
    }


def _percentile(values: NDArray[Any], share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float("nan")


def _first(time_s: NDArray[Any], where: NDArray[np.bool_]) -> float | None:
    return float(time_s[int(np.argmax(where))]) if where.any() else None
