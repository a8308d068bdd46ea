"""The policy's side of `vla doctor`: what it was trained with, does first, reacts to, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.config import PolicyKind
from vla.cli import build
from vla.cli.doctor.command import DoctorConfig, Finding, Level
from vla.cli.doctor.robot import Look, SeenRobot
from vla.control.rotation import Pose
from vla.control.trajectory import goal_of
from vla.errors import ActionError, PolicyError, VlaError
from vla.types import TABLETOP, ActionChunk, FloatArray, Observation, Policy, StateSpec

_LEARNED = (PolicyKind.CHECKPOINT, PolicyKind.REMOTE)
_JUMP_SHARE = (
    1.5  # of a joint's speed limit: an action that takes half as long again is nothing unusual
)
_WEAK_SHARE = 0.02  # of the action range: a smaller reaction is hardly one


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is known of how the policy was trained; None where nothing is."""

    image_size: int | None
    state_spec: StateSpec
    state_low: NDArray[Any] | None = None  # 1 % and 99 % of the training data
    state_high: NDArray[Any] | None = None


def load(cfg: DoctorConfig, robot: SeenRobot) -> tuple[Policy | None, Trained]:
    """Returns the policy and what it was trained with; the scripted expert is none: it sees no pictures.

    Raises:
        CheckpointError, ConfigError, PolicyError: it cannot be loaded or reached.
    """
    del robot
    if cfg.policy.kind is PolicyKind.EXPERT:
        return None, Trained(image_size=None, state_spec=TABLETOP.state_spec)
    policy: Any = build.build_policy(cfg.policy)
    body = getattr(policy, "embodiment", TABLETOP)
    low = high = None
    if cfg.policy.kind is PolicyKind.CHECKPOINT:
        from vla.checkpoints import native

        statistics = native.read_config(Path(cfg.policy.path))["state_statistics"]
        low, high = np.asarray(statistics["q01"]), np.asarray(statistics["q99"])
    return policy, Trained(
        image_size=getattr(policy, "image_size", None),
        state_spec=body.state_spec,
        state_low=low,
        state_high=high,
    )


def behaviour(
    cfg: DoctorConfig, policy: Policy | None, trained: Trained, robot: SeenRobot
) -> list[Finding]:
    """Returns what the policy's answers to real observations say."""
    if policy is None:
        seen = "the scripted expert reads the simulation; it looks at nothing"
        return [
            Finding(check="behaviour", level=Level.NOTE, seen=seen, expected="a policy that sees")
        ]
    looks = robot.looks(cfg, trained)
    missing = [
        name
        for name in policy.camera_names
        for look in looks[:1]
        if name not in look.observation.images
    ]
    if not looks or missing:
        seen = (
            f"camera {missing[0]} gives no picture" if missing else "the arm could not be reached"
        )
        advice = "see above; then run vla doctor again"
        expected = "pictures of every camera that the policy looks through"
        return [
            Finding(
                check="behaviour", level=Level.FORBIDS, seen=seen, expected=expected, advice=advice
            )
        ]
    policy.reset(seed=cfg.seed)
    try:
        chunks = [policy.act(look.observation) for look in looks]
    except (PolicyError, ActionError) as error:
        return [
            Finding(
                check="behaviour",
                level=Level.FORBIDS,
                seen=f"the policy refuses what the robot shows: {error}",
                expected="an answer",
                advice="make the robot's cameras and proprioception those of the training data",
            )
        ]
    return [
        *_state_in_range(trained, looks),
        _first_action(policy, looks, chunks, robot),
        _gripper(looks, chunks, trained),
        _sensitivity_to_pictures(cfg, policy, looks, chunks),
        _sensitivity_to_words(cfg, policy, looks, chunks),
        _latency(cfg, policy, looks, chunks),
    ]


def _state_in_range(trained: Trained, looks: list[Look]) -> list[Finding]:
    """Proprioception far outside what was trained on is a wrong unit, frame or zero."""
    low, high = trained.state_low, trained.state_high
    expected = "within what the policy was trained on, give or take its width"
    if low is None or high is None:
        seen = "the policy does not say what proprioception it was trained on"
        return [Finding(check="units of state", level=Level.NOTE, seen=seen, expected=expected)]
    states = np.stack([look.observation.state for look in looks]).astype(np.float64)
    beyond = np.maximum(low - states, states - high) / np.maximum(high - low, 1e-6)
    worst = int(beyond.max(axis=0).argmax())
    share = float(beyond[:, worst].max())
    name, unit = trained.state_spec.names[worst], trained.state_spec.units[worst]
    value = float(states[int(beyond[:, worst].argmax()), worst])
    if share <= 1.0:
        seen = f"every number lies within the training data; nearest to its end: {name} = {value:.3f} {unit}"
        return [Finding(check="units of state", level=Level.OK, seen=seen, expected=expected)]
    return [
        Finding(
            check="units of state",
            level=Level.FORBIDS if share > 10.0 else Level.WARNING,
            seen=f"{name} = {value:.3f} {unit}, trained on {low[worst]:.3f} to {high[worst]:.3f}",
            expected=expected,
            advice="check unit (degrees for radians, millimetres for metres), frame and calibration of this number, "
            "or bring the arm to where training data begin",
        )
    ]


def _first_action(
    policy: Policy, looks: list[Look], chunks: list[ActionChunk], robot: SeenRobot
) -> Finding:
    """How far the first action would carry the arm within its time, in shares of the joints' speed limits."""
    limits, dt_s = np.asarray(robot.limits.velocity), policy.action_spec.dt_s
    expected = f"finite, in range, no joint beyond {_JUMP_SHARE:g} times its speed limit in {1e3 * dt_s:.0f} ms"
    worst, told = 0.0, ""
    for look, chunk in zip(looks, chunks, strict=True):
        try:
            action = policy.action_spec.check(chunk.actions[0], tolerance=1e-3)
        except (ActionError, VlaError) as error:
            advice = "the policy or its statistics are broken: vla describe; do not let it move"
            return Finding(
                check="first action",
                level=Level.FORBIDS,
                seen=str(error),
                expected=expected,
                advice=advice,
            )
        tool: Pose = robot.kinematics.pose(look.joints)
        step = np.abs(robot.kinematics.solve(look.joints, goal_of(tool, [action])) - look.joints)
        share = float((step / dt_s / limits).max())
        if share >= worst:
            joint = int((step / limits).argmax())
            moved = 1e3 * float(np.linalg.norm(action[:3]))
            worst = share
            told = f"{moved:.0f} mm and {step[joint]:.3f} rad in {robot.limits.names[joint]}, "
            told += f"{100 * share:.0f} % of its speed limit"
    if worst <= _JUMP_SHARE:
        return Finding(
            check="first action", level=Level.OK, seen=f"at most {told}", expected=expected
        )
    return Finding(
        check="first action",
        level=Level.WARNING,
        seen=f"jumps: {told}",
        expected=expected,
        advice="the limiter will slow it down; begin nearer to where the training data begin",
    )


def _gripper(looks: list[Look], chunks: list[ActionChunk], trained: Trained) -> Finding:
    """An open gripper that is told to close at once, in every scene, is most likely a flipped sign."""
    expected = "a gripper that begins open is told to stay open (1) at first"
    names = trained.state_spec.names
    if "grip_width" not in names or trained.state_high is None:
        seen = "the policy does not say how its gripper was recorded"
        return Finding(check="gripper polarity", level=Level.NOTE, seen=seen, expected=expected)
    place = names.index("grip_width")
    width = np.array([look.observation.state[place] for look in looks])
    is_open = width > 0.5 * float(trained.state_high[place])
    told = np.array([float(chunk.actions[0, -1]) for chunk in chunks])
    seen = f"gripper {1e3 * width.mean():.0f} mm wide, first action {told.mean():.2f} (1 open, 0 closed)"
    if is_open.any() and (told[is_open] < 0.5).mean() > 0.8:
        return Finding(
            check="gripper polarity",
            level=Level.WARNING,
            seen=f"{seen}: an open gripper is told to close at once",
            expected=expected,
            advice="check the sign of the gripper in the training data (1 must mean open)",
        )
    return Finding(check="gripper polarity", level=Level.OK, seen=seen, expected=expected)


def _sensitivity_to_pictures(
    cfg: DoctorConfig, policy: Policy, looks: list[Look], chunks: list[ActionChunk]
) -> Finding:
    """Whether black pictures, and those of another scene, change the actions."""
    expected = "black pictures, and another scene's, change the actions"
    if cfg.policy.kind not in _LEARNED:
        return _not_learned("sees the picture", expected)
    black = [
        _with_images(look, {k: np.zeros_like(v) for k, v in look.observation.images.items()})
        for look in looks
    ]
    others = [_with_images(look, looks[i - 1].observation.images) for i, look in enumerate(looks)]
    to_black = _reaction(policy, black, chunks)
    to_other = _reaction(policy, others, chunks) if len(looks) > 1 else to_black
    seen = f"black pictures change actions by {_percent(to_black)} of their range, "
    seen += f"another scene's by {_percent(to_other)}"
    advice = "the vision tower may not run at all: check the checkpoint's conversion and the camera names"
    if to_black > 0:
        advice = (
            "it hardly looks: these pictures may be far from its training (another arm, light or camera place), or it "
            "learnt its data by heart; record some demonstrations here and fine-tune"
        )
    return _reacts("sees the picture", max(to_black, to_other), seen, expected, advice)


def _sensitivity_to_words(
    cfg: DoctorConfig, policy: Policy, looks: list[Look], chunks: list[ActionChunk]
) -> Finding:
    """Whether another instruction for the same pictures changes the actions."""
    expected = "another instruction changes the actions"
    if cfg.policy.kind not in _LEARNED:
        return _not_learned("hears the words", expected)
    asked = [replace(look.observation, instruction=look.other_instruction) for look in looks]
    size = _reaction(policy, asked, chunks)
    first = looks[0]
    seen = (
        f"another instruction ({first.other_instruction!r} for {first.observation.instruction!r}) "
        f"changes actions by {_percent(size)} of their range"
    )
    advice = (
        "a policy trained on one sentence, or on other words than these, cannot be told anything; "
        "train on several instructions per scene"
    )
    finding = _reacts("hears the words", size, seen, expected, advice)
    is_deaf = finding.level is Level.FORBIDS
    return replace(finding, level=Level.WARNING) if is_deaf else finding


def _latency(
    cfg: DoctorConfig, policy: Policy, looks: list[Look], chunks: list[ActionChunk]
) -> Finding:
    """The policy's answer against the time that its actions last, and against what the control loop tolerates."""
    times: list[float] = []
    for i in range(cfg.calls):
        began_s = time.perf_counter()
        policy.act(looks[i % len(looks)].observation)
        times.append(1e3 * (time.perf_counter() - began_s))
    p50, p99 = np.percentile(times, [50, 99]).tolist()
    period_ms, limit_ms = 1e3 * policy.action_spec.dt_s, cfg.control.max_action_age_ms
    steps = len(chunks[0].actions)
    seen = (
        f"answers take {p50:.0f} ms (p50), {p99:.0f} ms (p99); trained at {policy.action_spec.rate_hz:g} Hz "
        f"({period_ms:.0f} ms an action), {steps} actions a chunk"
    )
    expected = (
        f"p50 below control.max_action_age_ms={limit_ms:g}, and a chunk that lasts longer than p99"
    )
    slower = (
        f"use a faster machine or policy.device=cuda, or control.max_action_age_ms={2 * p99:.0f}"
    )
    if p50 >= limit_ms:
        advice = f"the arm would be held all the time: {slower}"
        return Finding(
            check="latency", level=Level.FORBIDS, seen=seen, expected=expected, advice=advice
        )
    if p99 >= min(limit_ms, steps * period_ms):
        advice = f"the arm will stop and go: {slower}"
        return Finding(
            check="latency", level=Level.WARNING, seen=seen, expected=expected, advice=advice
        )
    return Finding(check="latency", level=Level.OK, seen=seen, expected=expected)


def _reaction(policy: Policy, asked: list[Observation], chunks: list[ActionChunk]) -> float:
    """Returns the mean change of an action in shares of its range; 0 only when every number and chance are equal."""
    spec = policy.action_spec
    span = np.asarray(spec.high) - np.asarray(spec.low)
    changes: list[float] = []
    is_same = True
    for observation, before in zip(asked, chunks, strict=True):
        after = policy.act(observation)
        changes.append(float((np.abs(after.actions - before.actions) / span).mean()))
        is_same &= np.array_equal(after.actions, before.actions) and _equal(
            after.probabilities, before.probabilities
        )
    return 0.0 if is_same else max(float(np.mean(changes)), 1e-9)


def _equal(after: FloatArray | None, before: FloatArray | None) -> bool:
    return after is None or before is None or bool(np.array_equal(after, before))


def _reacts(check: str, size: float, seen: str, expected: str, advice: str) -> Finding:
    level = Level.FORBIDS if size == 0 else Level.WARNING if size < _WEAK_SHARE else Level.OK
    return Finding(
        check=check,
        level=level,
        seen=seen,
        expected=expected,
        advice="" if level is Level.OK else advice,
    )


def _not_learned(check: str, expected: str) -> Finding:
    seen = "not checked: this policy was not trained"
    return Finding(check=check, level=Level.NOTE, seen=seen, expected=expected)


def _with_images(look: Look, images: dict[str, Any]) -> Observation:
    return replace(look.observation, images=images)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
