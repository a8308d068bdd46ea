"""What a rehearsal and the onlookers of a drive need before any process starts, and what a rehearsal amounted to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.config import PolicyKind
from vla.cli import build
from vla.cli.deploy.command import DeployConfig
from vla.control.checks import Check
from vla.control.limits import JointLimits

logger = logging.getLogger(__name__)


def prepared(cfg: DeployConfig) -> DeployConfig:
    """Returns the settings as a rehearsal or an onlooker needs them; raises ConfigError when something is missing."""
    if cfg.view:
        build.check_serving_installed()
    if cfg.rerun:
        from vla.cli.deploy.rerun_recorder import check_rerun_installed

        check_rerun_installed()
    if cfg.record and cfg.policy.kind is PolicyKind.CHECKPOINT:
        from vla.checkpoints import native

        described = native.read_config(Path(cfg.policy.path))
        size = int(described["model"]["config"]["image_size"])
        cfg = replace(cfg, env=replace(cfg.env, image_size=size))
    return _rehearsal(cfg) if cfg.dry_run else cfg


def rehearsal_facts(rows: Mapping[str, NDArray[Any]], limits: JointLimits) -> dict[str, Any]:
    """Returns what would have been sent, from the tick log."""
    command, joints = rows["command"], rows["joints"]
    if not len(command):
        return {"commands": 0}
    away = np.abs(command - joints)
    tick, joint = np.unravel_index(int(away.argmax()), away.shape)
    steps = np.abs(np.diff(command, axis=0, prepend=joints[:1]))
    first = int(steps[0].argmax())
    return {
        "commands": len(command),
        "first_step_rad": float(steps[0, first]),
        "first_step_joint": limits.names[first],
        "farthest_rad": float(away[tick, joint]),
        "farthest_joint": limits.names[int(joint)],
        "range_rad": {
            name: [float(command[:, i].min()), float(command[:, i].max())]
            for i, name in enumerate(limits.names)
        },
        "gripper": [float(rows["gripper"].min()), float(rows["gripper"].max())],
    }


def rehearsal_text(facts: Mapping[str, Any]) -> str:
    """Returns what would have been sent, for a person."""
    if not facts["commands"]:
        return "rehearsal: nothing would have been sent"
    lines = [
        f"rehearsal: {facts['commands']} commands would have been sent; nothing was",
        f"  first    {facts['first_step_rad']:.4f} rad from where the arm is ({facts['first_step_joint']})",
        f"  farthest {facts['farthest_rad']:.3f} rad from where the arm is ({facts['farthest_joint']})",
        f"  gripper  {facts['gripper'][0]:.2f} to {facts['gripper'][1]:.2f} (1 open, 0 closed)",
    ]
    lines += [
        f"  {name:<14} {low:+.3f} to {high:+.3f} rad"
        for name, (low, high) in facts["range_rad"].items()
    ]
    return "\n".join([*lines, "every command is in ticks.npz (column command)"])


def watch_text(watch: Mapping[str, Any]) -> str:
    """Returns what the onlookers kept and dropped, for a person; empty when nobody looked on."""
    lines: list[str] = []
    if "error" in watch:
        lines.append(f"onlooker: {watch['error']}")
    if recorded := watch.get("recorded"):
        lost = recorded["dropped_frames"] + watch["frames_without_picture"]
        lines.append(
            f"recorded {recorded['frames']} frames in {recorded['episodes']} episodes to {recorded['root']}; "
            f"{lost} frames dropped, {recorded['short_frames']} in stretches too short to keep"
        )
        lines += recorded["trouble"]
        if recorded["frames"]:
            lines.append(f"train on it: vla train data.roots=[{recorded['root']}]")
    if rerun := watch.get("rerun"):
        lines.append(
            f"rerun {rerun['path']}: {rerun['logged']} entries, {rerun['dropped']} dropped"
        )
    if page := watch.get("page"):
        lines.append(
            f"live page: {page['browsers']} browsers, {page['dropped']} of "
            f"{page['dropped'] + page['sent']} updates dropped"
        )
    return "\n".join(lines)


def _rehearsal(cfg: DeployConfig) -> DeployConfig:
    """Without the check that the arm is where it was told to be: it is told nothing."""
    logger.info("rehearsal: nothing is sent to the arm")
    off = sorted({*cfg.control.disabled_checks, Check.TRACKING.value})
    return replace(cfg, control=replace(cfg.control, disabled_checks=off), save_video=False)
