"""The summary of a drive, the table a person reads, and the histogram of lateness."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla.cli.convert import to_plain
from vla.cli.deploy.command import DeployConfig, Time
from vla.cli.deploy.onlooker import rehearsal_facts, rehearsal_text, watch_text
from vla.cli.deploy.workers import TICKS_FILE, Ended
from vla.control.limits import joint_limits
from vla.control.report import action_facts, deadline_facts, latency_facts, stall_facts
from vla.control.verify import verify


def summarize(cfg: DeployConfig, ended: Ended, directory: Path) -> dict[str, Any]:
    """Returns everything that goes into summary.json, from the tick log in `directory` and what the processes said."""
    with np.load(directory / TICKS_FILE) as file:
        rows = dict(file)
    period_s = cfg.control.period_s
    violations = verify(rows, joint_limits(cfg.robot.arm), period_s)
    episodes = [episode for episode in ended.policy.get("episodes", []) if episode["outcome"]]
    safety = ended.control["safety"]
    realtime = ended.control.get("realtime", {})
    summary: dict[str, Any] = {
        **deadline_facts(rows, period_s),
        "limit_violations": violations.count,
        "holds": ended.control["holds"],
        "hold_reasons": ended.control["hold_reasons"],
        "hold_list": _since_start(ended.control["hold_list"], rows),
        **action_facts(rows, period_s),
        "refused_commands": safety["refused_chunks"],
        "clipped_actions": safety["clipped_actions"],
        "limited_ticks": {
            kind: safety[f"{kind}_ticks"] for kind in ("position", "velocity", "acceleration")
        },
        "safety": safety,
        "violations": violations.first,
        "share_of_limits": violations.peaks,
        "max_jerk_rad_s3": violations.max_jerk,
        "episodes": len(episodes),
        "episode_list": ended.policy.get("episodes", []),
        "successes": sum(episode["outcome"] == "success" for episode in episodes),
        **latency_facts(ended.policy.get("answer_times_s", [])),
        "drive_seconds": cfg.seconds,
        "rate_hz": cfg.control.servo_hz,
        "time": cfg.time.value,
        "scheduling": _scheduling(cfg, realtime),
        "torch_in_control_process": ended.control.get("torch_loaded"),
        "task": cfg.env.task,
        "policy": to_plain(cfg.policy),
    }
    if ended.stall_began_s:
        summary["stall"] = stall_facts(rows, ended.stall_began_s, cfg.faults.stall_policy_for_s)
    if ended.driver:
        summary["arm"] = ended.driver
    if ended.memory:
        summary["memory"] = ended.memory
    if cfg.control.disabled_checks:
        summary["disabled_checks"] = list(cfg.control.disabled_checks)
    if ended.black_boxes:
        summary["black_boxes"] = [box.name for box in ended.black_boxes]
    if ended.watch:
        summary["watch"] = ended.watch
    if cfg.dry_run:
        summary["rehearsal"] = rehearsal_facts(rows, joint_limits(cfg.robot.arm))
    video = directory / "video.mp4"
    return {**summary, "video": video} if video.exists() else summary


def _since_start(holds: list[dict[str, Any]], rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the holds with their beginning in seconds after the first tick."""
    start_s = float(rows["time_s"][0]) if len(rows["time_s"]) else 0.0
    return [{**hold, "began_at_s": round(hold["began_at_s"] - start_s, 3)} for hold in holds]


def table(summary: dict[str, Any]) -> str:
    """Returns the report that is printed."""
    lines = [
        f"{summary['ticks']} ticks at {summary['rate_hz']:g} Hz, scheduling {summary['scheduling']}",
        "",
        _row(
            "lateness of a tick",
            _milliseconds(summary, "p50_ms", "p99_ms", "p999_ms", "max_ms"),
            "p50 p99 p99.9 max",
        ),
        _row(
            "work of a tick",
            _milliseconds(summary, "work_p50_ms", "work_p99_ms", "work_max_ms"),
            "p50 p99 max",
        ),
        _row(
            "missed deadlines", summary["misses"], "began more than one period late, or not at all"
        ),
        _row(
            "age of the action",
            _milliseconds(summary, "action_age_p50_ms", "action_age_p99_ms", "action_age_max_ms"),
            "p50 p99 max, since its observation",
        ),
        _row(
            "policy's answer",
            _milliseconds(summary, "answer_p50_ms", "answer_p99_ms", "answer_max_ms"),
            f"p50 p99 max of {summary['answers']}, pictures and inference",
        ),
        _row("holds", summary["holds"], _counts(summary["hold_reasons"])),
        _row(
            "refused chunks",
            summary["refused_commands"],
            f"{summary['clipped_actions']} actions clipped",
        ),
        _row("limit violations", summary["limit_violations"], _peak(summary["share_of_limits"])),
        _row("episodes", summary["episodes"], f"{summary['successes']} solved"),
    ]
    if "arm" in summary:
        lines.append(
            _row(
                "arm",
                "parked"
                if summary["arm"].get("is_parked")
                else "left as it was"
                if "rehearsal" in summary
                else "NOT parked",
                _faults(summary["arm"]),
            )
        )
    if "disabled_checks" in summary:
        lines.append(_row("checks turned off", ", ".join(summary["disabled_checks"]), ""))
    if "black_boxes" in summary:
        boxes = summary["black_boxes"]
        lines.append(_row("black boxes", len(boxes), f"last 10 s of state: {', '.join(boxes[:3])}"))
    if "stall" in summary:
        lines.append(_row("stalled policy", _stall(summary["stall"]), ""))
    if "rehearsal" in summary:
        lines += ["", rehearsal_text(summary["rehearsal"])]
    if "watch" in summary:
        lines += ["", watch_text(summary["watch"])]
    return "\n".join([*lines, *_notes(summary)])


def plot(summary: dict[str, Any], path: Path) -> None:
    """Writes the histogram of lateness as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    histogram = summary["lateness_histogram"]
    edges, counts = histogram["edges_ms"], histogram["counts"]
    labels = [f"{low:g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    bars = axes.bar(labels, np.maximum(counts, 0.5), color="#3b6ea5")
    axes.bar_label(bars, [str(count) for count in counts], fontsize=8)
    axes.set(yscale="log", ylabel="ticks", xlabel="lateness, ms", title=_title(summary))
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['rate_hz']:g} Hz, {summary['ticks']} ticks, {summary['misses']} missed, {summary['scheduling']}"


def _scheduling(cfg: DeployConfig, realtime: dict[str, Any]) -> str:
    if cfg.time is Time.SIMULATED:
        return "simulated time"
    words = [f"fifo {cfg.control.realtime.priority}" if realtime.get("fifo") else "normal"]
    words += ["memory locked"] if realtime.get("memory_locked") else []
    words += [f"core {realtime['core']}"] if realtime.get("core") is not None else []
    return ", ".join(words)


def _notes(summary: dict[str, Any]) -> list[str]:
    """Returns what a reader should do about what the numbers show."""
    notes = list(summary["violations"][:3])
    late = summary["hold_reasons"].get("policy_late", 0)
    if late and summary["hold_list"]:
        example = next(
            hold for hold in reversed(summary["hold_list"]) if hold["check"] == "policy_late"
        )
        notes.append(
            f"{late} holds because the policy was late, e.g. {example['message']}; a slower policy needs a higher "
            "control.max_action_age_ms"
        )
    notes += [f"refused: {reason}" for reason in summary["safety"]["refusals"][:2]]
    return ["", *notes] if notes else []


def _faults(arm: dict[str, Any]) -> str:
    faults = arm.get("faults", [])
    return f"{len(faults)} faults, the last: {faults[-1]}" if faults else "no faults"


def _row(name: str, value: object, note: str) -> str:
    return f"{name:20}{value!s:>28}   {note}".rstrip()


def _milliseconds(summary: dict[str, Any], *keys: str) -> str:
    values = [summary[key] for key in keys]
    if not np.isfinite(values).all():
        return "none"
    return " / ".join(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values) + " ms"


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.items())


def _peak(shares: dict[str, float]) -> str:
    kind = max(shares, key=lambda name: shares[name])
    return f"closest: {kind} at {100 * shares[kind]:.1f} % of its limit"


def _stall(stall: dict[str, Any]) -> str:
    def text(key: str) -> str:
        return "never" if stall[key] is None else f"{stall[key]:.0f} ms"

    return (
        f"held after {text('held_after_ms')}, at rest after {text('at_rest_after_ms')}, "
        f"moving {text('resumed_after_ms')} after its end"
    )
