"""A picture of one black box: how the arm moved before and after a check held it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vla.control.log import Mode


def plot(path: Path) -> Path:
    """Writes PATH.png beside a black box PATH.npz and its .json, and returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(path) as file:
        rows = dict(file)
    time_s = rows["time_s"] - facts["began_at_s"]
    figure, axes = pyplot.subplots(4, 1, figsize=(9, 9), sharex=True, layout="constrained")
    panels = (
        ("joints", "joints, rad", facts["joints"]),
        ("velocity", "velocity, rad/s", facts["joints"]),
        ("tool", "tool, m", ["x", "y", "z"]),
    )
    for panel, (column, label, names) in zip(axes[:3], panels, strict=True):
        for index, name in enumerate(names):
            panel.plot(time_s, rows[column][:, index], label=name, linewidth=1, color=f"C{index}")
        if column == "joints":
            panel.plot(time_s, rows["command"], "--", color="black", linewidth=0.5)
        panel.set_ylabel(label)
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)
    axes[3].plot(time_s, 1e3 * rows["action_age_s"], label="age of the action", linewidth=1)
    axes[3].plot(time_s, 1e3 * rows["lateness_s"], label="lateness", linewidth=1)
    axes[3].set(ylabel="ms", xlabel="s after the breach; dashed: commands; shaded: held")
    axes[3].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)
    is_held = rows["mode"] == Mode.HOLD
    for panel in axes:
        panel.fill_between(
            time_s,
            0,
            1,
            where=is_held,
            transform=panel.get_xaxis_transform(),
            alpha=0.15,
            color="red",
        )
        panel.axvline(0.0, color="red", linewidth=0.8)
    figure.suptitle(f"{facts['check']}: {facts['message']}", fontsize=9, wrap=True)
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
    return picture
