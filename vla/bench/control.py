"""What the control loop costs on this machine: its channel's latency, and a report on drives with and without FIFO."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from vla.control.channel import Field, Layout, SharedChannel
from vla.errors import RobotError

_EVERY_S = 0.002
_LONGEST_START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ChannelReport:
    """One-way latency of vla.control.channel between two processes, from before it is written to after it is read.

    Attributes:
        payload_bytes: size of a message.
        messages, lost: published, and never seen because a newer one had come.
        p50_us, p99_us, max_us: of the latency, the reader looking without a pause.
        publish_us, read_us: median time that writing and reading take by themselves.
    """

    payload_bytes: int
    messages: int
    lost: int
    p50_us: float
    p99_us: float
    max_us: float
    publish_us: float
    read_us: float


def measure_channel(payload_bytes: int = 2048, messages: int = 1000) -> ChannelReport:
    """Returns the latency of `messages` sent at 500 Hz to a process that does nothing but look."""
    layout: Layout = {"sent_s": Field(), "payload": Field((payload_bytes,), "uint8")}
    shared, context = SharedChannel(layout), multiprocessing.get_context("spawn")
    pipe, other = context.Pipe(duplex=True)
    reader = context.Process(target=_read, args=(shared, other, messages), daemon=True)
    try:
        reader.start()
        if not pipe.poll(_LONGEST_START_S):
            raise RobotError(f"the reading process did not start within {_LONGEST_START_S:.0f} s")
        pipe.recv()
        publish_s = _publish(shared, payload_bytes, messages)
        if not pipe.poll(_LONGEST_START_S):
            raise RobotError("the reading process did not see the last message")
        latency_s, read_s = pipe.recv()
    finally:
        reader.kill()
        reader.join()
        shared.unlink()
    latency_us = 1e6 * np.asarray(latency_s)
    return ChannelReport(
        payload_bytes=payload_bytes,
        messages=messages,
        lost=messages - len(latency_us),
        p50_us=float(np.percentile(latency_us, 50)),
        p99_us=float(np.percentile(latency_us, 99)),
        max_us=float(latency_us.max()),
        publish_us=1e6 * float(np.median(publish_s)),
        read_us=1e6 * float(np.median(read_s)),
    )


def phase_facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the bench reports of one drive, from its summary."""
    names = ("ticks", "misses", "p50_ms", "p99_ms", "p999_ms", "max_ms")
    names += ("work_p50_ms", "work_p99_ms", "work_max_ms", "holds", "limit_violations")
    names += ("answers", "answer_p50_ms", "scheduling")
    return {
        **{name: summary[name] for name in names},
        "deadline_ms": 1e3 / summary["rate_hz"],
        "memory_mb": summary["memory"],
    }


def table(phases: Mapping[str, Mapping[str, Any]], channels: list[ChannelReport]) -> str:
    """Returns the report that is printed."""
    deadline_ms = next(iter(phases.values()))["deadline_ms"]
    head = ("scheduling", "ticks", "p50", "p99", "p99.9", "max", f"missed {deadline_ms:g} ms")
    rows = [
        (
            phase["scheduling"],
            str(phase["ticks"]),
            *(f"{phase[name]:.3f}" for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms")),
            str(phase["misses"]),
        )
        for phase in phases.values()
    ]
    lines = ["lateness of a tick, ms", *_columns([head, *rows]), ""]
    head = ("work of a tick, ms", "p50", "p99", "max", "holds", "violations")
    rows = [
        (
            phase["scheduling"],
            *(f"{phase[name]:.3f}" for name in ("work_p50_ms", "work_p99_ms", "work_max_ms")),
            str(phase["holds"]),
            str(phase["limit_violations"]),
        )
        for phase in phases.values()
    ]
    lines += [*_columns([head, *rows]), ""]
    head = ("shared-memory channel, us", "one way p50", "p99", "max", "publish", "read")
    rows = [
        (
            f"{report.payload_bytes} bytes",
            *(f"{value:.1f}" for value in (report.p50_us, report.p99_us, report.max_us)),
            *(f"{value:.1f}" for value in (report.publish_us, report.read_us)),
        )
        for report in channels
    ]
    lines += [*_columns([head, *rows]), ""]
    head = ("private memory, MB", "process", "start", "end", "growth per minute")
    rows = [
        (
            phase["scheduling"],
            name,
            *(f"{memory[key]:.1f}" for key in ("start_mb", "end_mb")),
            f"{memory['growth_mb_per_min']:.3f}",
        )
        for phase in phases.values()
        for name, memory in phase["memory_mb"].items()
    ]
    return "\n".join([*lines, *_columns([head, *rows])])


def _publish(shared: SharedChannel, payload_bytes: int, messages: int) -> list[float]:
    """Sends the messages and returns how long each took to write, s."""
    payload = np.random.default_rng(0).integers(0, 255, payload_bytes, dtype=np.uint8)
    took_s: list[float] = []
    for _ in range(messages):
        began_s = time.monotonic()
        shared.channel.publish(sent_s=began_s, payload=payload)
        took_s.append(time.monotonic() - began_s)
        time.sleep(_EVERY_S)
    return took_s


def _read(shared: SharedChannel, pipe: Connection, messages: int) -> None:
    """Looks for messages until the last one and sends back their latencies and how long a read took, s."""
    latency_s: list[float] = []
    took_s: list[float] = []
    pipe.send("ready")
    while True:
        began_s = time.monotonic()
        message = shared.channel.read_new()
        if message is None:
            continue
        now_s = time.monotonic()
        latency_s.append(now_s - message.number("sent_s"))
        took_s.append(now_s - began_s)
        if message.sequence == messages:
            pipe.send((latency_s, took_s))
            return


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
