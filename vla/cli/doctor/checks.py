"""The part of `vla doctor` that compares descriptions: cameras, sizes, rate, action space, gripper and units."""

from __future__ import annotations

from vla.cli.doctor.command import DoctorConfig, Finding, Level
from vla.cli.doctor.policy import Trained
from vla.cli.doctor.robot import SeenRobot
from vla.types import Policy

_SQUARE_ENOUGH = 1.4  # longer side over shorter; more is squeezed visibly


def fit(
    cfg: DoctorConfig, policy: Policy | None, trained: Trained, robot: SeenRobot
) -> list[Finding]:
    """Returns whether what the policy was trained with and what the robot is are the same."""
    if policy is None:
        return []
    return [
        _camera_names(policy, robot),
        _camera_sizes(policy, trained, robot),
        _rate(cfg, policy, robot),
        _action_space(policy, robot),
        _gripper_unit(policy, robot),
        _state_units(trained, robot),
    ]


def _camera_names(policy: Policy, robot: SeenRobot) -> Finding:
    wanted, there = set(policy.camera_names), set(robot.cameras)
    names, has = ", ".join(policy.camera_names) or "none", ", ".join(sorted(there)) or "none"
    expected = f"the checkpoint's: {names}"
    if missing := sorted(wanted - there):
        return Finding(
            check="camera names",
            level=Level.FORBIDS,
            seen=f"the robot has {has}; {', '.join(missing)} is missing",
            expected=expected,
            advice=f"add {missing[0]}=zmq://... or {missing[0]}=opencv:/dev/video0 to robot.cameras"
            if robot.is_real
            else f"add {missing[0]} to env.cameras",
        )
    unused = sorted(there - wanted)
    more = f"; {', '.join(unused)} is not looked at" if unused else ""
    return Finding(check="camera names", level=Level.OK, seen=f"{has}{more}", expected=expected)


def _camera_sizes(policy: Policy, trained: Trained, robot: SeenRobot) -> Finding:
    size = trained.image_size
    if size is None:
        seen = "the policy takes pictures of any size"
        return Finding(check="picture sizes", level=Level.NOTE, seen=seen, expected="any")
    expected = f"{size} x {size}, or larger and nearly square"
    shown: list[str] = []
    level, advice = Level.OK, ""
    for name in policy.camera_names:
        found = robot.cameras.get(name)
        if found is None:
            shown.append(f"{name} drawn at {size} x {size}")
            continue
        height, width = found
        shown.append(f"{name} {width} x {height}")
        if min(height, width) < size:
            level, advice = Level.WARNING, f"set the camera to at least {size} x {size}"
        elif max(height, width) > _SQUARE_ENOUGH * min(height, width) and level is Level.OK:
            level = Level.WARNING
            advice = "pictures are squeezed to a square; the training data must have been made the same way"
    return Finding(
        check="picture sizes", level=level, seen=", ".join(shown), expected=expected, advice=advice
    )


def _rate(cfg: DoctorConfig, policy: Policy, robot: SeenRobot) -> Finding:
    trained_hz, runs_hz = policy.action_spec.rate_hz, robot.action_spec.rate_hz
    expected = f"{trained_hz:g} actions and at least as many pictures a second, and a faster servo"
    slow = {name: hz for name, hz in robot.camera_hz.items() if hz < trained_hz}
    pictures = ", ".join(f"{name} {hz:g} Hz" for name, hz in robot.camera_hz.items())
    seen = f"{runs_hz:g} actions a second at a servo rate of {cfg.control.servo_hz:g} Hz"
    seen += f"; {pictures}" if pictures else "; pictures on demand"
    if trained_hz != runs_hz:
        advice = f"train at {runs_hz:g} Hz, or resample the data"
        return Finding(
            check="rates", level=Level.FORBIDS, seen=seen, expected=expected, advice=advice
        )
    if slow:
        advice = f"raise fps of {', '.join(slow)} to {trained_hz:g} or more in robot.cameras"
        return Finding(
            check="rates", level=Level.WARNING, seen=seen, expected=expected, advice=advice
        )
    return Finding(check="rates", level=Level.OK, seen=seen, expected=expected)


def _action_space(policy: Policy, robot: SeenRobot) -> Finding:
    given, taken = policy.action_spec, robot.action_spec
    expected = (
        f"{', '.join(taken.names)} in {', '.join(dict.fromkeys(taken.units))}; frame: {taken.frame}"
    )
    seen = f"{', '.join(given.names)} in {', '.join(dict.fromkeys(given.units))}"
    if given.names != taken.names or given.is_relative != taken.is_relative:
        problem, advice = "other numbers", "use a policy of this action space"
    elif given.units[:-1] != taken.units[:-1]:
        problem, advice = (
            "other units",
            "convert the actions where the dataset is made, and train again",
        )
    elif given.frame != taken.frame:
        problem, advice = (
            f"another frame: {given.frame}",
            "record actions in the robot's base frame",
        )
    elif any(a < b - 1e-6 for a, b in zip(given.low, taken.low, strict=True)) or any(
        a > b + 1e-6 for a, b in zip(given.high, taken.high, strict=True)
    ):
        problem, advice = (
            "wider limits",
            "larger actions will be clipped; retrain with these limits",
        )
        seen = f"{seen}: {problem}"
        return Finding(
            check="action space", level=Level.WARNING, seen=seen, expected=expected, advice=advice
        )
    else:
        return Finding(check="action space", level=Level.OK, seen=seen, expected=expected)
    return Finding(
        check="action space",
        level=Level.FORBIDS,
        seen=f"{seen}: {problem}",
        expected=expected,
        advice=advice,
    )


def _gripper_unit(policy: Policy, robot: SeenRobot) -> Finding:
    given, taken = policy.action_spec, robot.action_spec
    expected = f"{taken.units[-1]}, {taken.low[-1]:g} to {taken.high[-1]:g}"
    seen = f"{given.units[-1]}, {given.low[-1]:g} to {given.high[-1]:g}"
    is_same = given.units[-1] == taken.units[-1] and given.low[-1] == taken.low[-1]
    if is_same and given.high[-1] == taken.high[-1]:
        return Finding(check="gripper's meaning", level=Level.OK, seen=seen, expected=expected)
    return Finding(
        check="gripper's meaning",
        level=Level.FORBIDS,
        seen=seen,
        expected=expected,
        advice="flip or scale the gripper where the dataset is made, and train again",
    )


def _state_units(trained: Trained, robot: SeenRobot) -> Finding:
    expected = _named(robot.state_spec.names, robot.state_spec.units)
    seen = _named(trained.state_spec.names, trained.state_spec.units)
    if seen == expected:
        return Finding(check="proprioception", level=Level.OK, seen=seen, expected=expected)
    return Finding(
        check="proprioception",
        level=Level.FORBIDS,
        seen=f"the policy wants {seen}",
        expected=f"what the robot gives: {expected}",
        advice="use a policy of this robot, or record its proprioception in these units",
    )


def _named(names: tuple[str, ...], units: tuple[str, ...]) -> str:
    return ", ".join(f"{name} [{unit}]" for name, unit in zip(names, units, strict=True))
