"""Whatever anybody asks for: random commands through the safety layer, looked at afterwards by plain differences."""

from collections.abc import Iterator

import numpy as np
import pytest

from vla.control.limits import Workspace, joint_limits
from vla.control.robot import JointState
from vla.control.safety import Safety, SafetyConfig
from vla.control.verify import Violations, verify

BOX = Workspace(low=(-2, -2, -2), high=(2, 2, 2), max_tilt_rad=3.1, max_yaw_rad=3.1)
ARMS = [("panda", 100), ("fr3", 500), ("ur5e", 250), ("so101", 50)]
GARBAGE = (np.nan, np.inf, -np.inf, 1e9, -1e9, 1e300)


def random_targets(safety: Safety, num: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields targets that wander through and beyond the whole range at up to the largest speed that is not absurd.

    In every second stretch of 500, one in five is something else: a far place, a jump, numbers that are none, or
    another shape.
    """
    limiter = safety.limiter
    low, high, width = limiter.low, limiter.high, len(limiter.low)
    # each direction lasts long enough to meet the end of the range at full speed
    drift = rng.choice([-1.0, 0.0, 1.0], (num // 50 + 1, width))
    drift *= 10.0 ** rng.uniform(-3, 0, (len(drift), 1))
    steps = np.clip(
        np.repeat(drift, 50, axis=0)[:num] + 0.05 * rng.normal(size=(num, width)), -1, 1
    )
    steps *= 0.9 * safety._largest_step
    anywhere = rng.uniform(2 * low - high, 2 * high - low, (num, width))
    kinds = rng.choice(5, num, p=[0.8, 0.05, 0.05, 0.05, 0.05])
    kinds[np.arange(num) // 500 % 2 == 0] = 0
    for index, (kind, step) in enumerate(zip(kinds.tolist(), steps, strict=True)):
        match kind:
            case 0:
                yield limiter.target + step
            case 1:
                yield limiter.target - 1.1 * step
            case 2:
                yield anywhere[index]
            case 3:
                step[index % width] = GARBAGE[index // 7 % len(GARBAGE)]
                yield limiter.target + step
            case _:
                yield np.zeros([(), (0,), (width + 1,), (1, width), (width, width)][index % 5])


def send(name: str, servo_hz: float, num: int, seed: int) -> tuple[Violations, Safety]:
    """Sends `num` commands and returns what verify() finds in what came out."""
    limits, dt, rng = joint_limits(name), 1 / servo_hz, np.random.default_rng(seed)
    safety = Safety(SafetyConfig(), limits, BOX, dt, 0.25)
    start = (safety.limiter.low + safety.limiter.high) / 2
    still = np.zeros(limits.num_joints)
    safety.restart(JointState(start, still, 1.0, 0.0))
    sent = np.full((num, limits.num_joints), np.nan)
    for index, target in enumerate(random_targets(safety, num, rng)):
        sent[index] = safety.follow(target).joints
    rows = {
        "command": sent,
        "joints": sent,
        "velocity": np.zeros_like(sent),
        "segment": np.zeros(num, dtype=int),
        "start": np.tile(start, (num, 1)),
    }
    return verify(rows, limits, dt), safety


@pytest.mark.parametrize(("name", "servo_hz"), ARMS)
def test_no_command_out_of_many_random_ones_leaves_the_limits(name, servo_hz):
    found, safety = send(name, servo_hz, 12_500, seed=0)
    assert found.count == 0, found.first
    assert safety.counts.refused_targets > 500
    # the commands went where the limits are, and past nothing
    assert found.peaks["commanded velocity"] > 0.99
    assert found.peaks["commanded acceleration"] > 0.99
    assert found.peaks["commanded position"] > 0.98


@pytest.mark.slow  # a million commands
@pytest.mark.parametrize(("name", "servo_hz"), ARMS)
def test_no_command_out_of_a_million_random_ones_leaves_the_limits(name, servo_hz):
    found, safety = send(name, servo_hz, 250_000, seed=1)
    jerk = ", ".join(f"{value:.0f}" for value in found.max_jerk)
    print(
        f"{name} at {servo_hz} Hz: {safety.counts.refused_targets} refused, largest jerk {jerk} rad/s^3"
    )
    assert found.count == 0, found.first
