import dataclasses

import numpy as np
import pytest

from vla.control.limits import PANDA
from vla.control.verify import verify

DT = 0.01
MIDDLE = (np.asarray(PANDA.low) + np.asarray(PANDA.high)) / 2


def rows(command: np.ndarray, segment: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A log in which the arm did what `command` (ticks, 7) says, each segment starting from its first command."""
    segment = np.zeros(len(command), dtype=int) if segment is None else segment
    starts = {number: command[np.argmax(segment == number)] for number in np.unique(segment)}
    return {
        "command": command,
        "joints": command.copy(),
        "velocity": np.zeros_like(command),
        "segment": segment,
        "start": np.stack([starts[number] for number in segment]),
    }


def still(ticks: int = 10) -> np.ndarray:
    return np.tile(MIDDLE, (ticks, 1))


def test_an_arm_at_rest_violates_nothing():
    found = verify(rows(still()), PANDA, DT)
    assert (found.count, found.first) == (0, [])
    assert found.peaks["commanded velocity"] == 0.0


def test_constant_speed_within_limits_is_no_violation_once_it_is_reached():
    slow = MIDDLE + np.cumsum(np.minimum(np.arange(100) * 1.0 * DT, 0.5))[:, None] * DT
    assert verify(rows(slow), PANDA, DT).count == 0


def test_a_step_is_a_velocity_and_an_acceleration_violation_with_joint_and_unit():
    command = still()
    command[5:, 3] += 0.05  # 5 rad/s for one tick
    found = verify(rows(command), PANDA, DT)
    assert found.count == 6  # one velocity, acceleration up and down, and jerk three times
    assert "tick 5: commanded velocity of joint4 is 5.0000 rad/s, limit 2.1750" in found.first


def test_the_first_command_of_a_segment_must_lie_where_it_starts():
    log = rows(still())
    log["start"] = log["start"] - 0.1
    assert verify(log, PANDA, DT).count > 0


def test_a_jump_between_segments_is_none():
    command = np.vstack([still(5), still(5) + 0.4])
    assert verify(rows(command, np.repeat([0, 1], 5)), PANDA, DT).count == 0


def test_positions_beyond_the_range_count_for_commands_and_for_the_arm():
    command = still()
    command[:, 5] = PANDA.high[5] + 0.01
    found = verify(rows(command), PANDA, DT)
    assert found.count == 20
    assert any("commanded position of joint6" in text for text in found.first)


def test_a_command_that_is_not_finite_is_a_violation():
    command = still()
    command[4, 0] = np.nan
    assert verify(rows(command), PANDA, DT).count > 0


def test_a_measured_velocity_beyond_the_limit_is_a_violation():
    log = rows(still())
    log["velocity"][2, 6] = -2.7
    found = verify(log, PANDA, DT)
    assert found.count == 1
    assert found.first == ["tick 2: measured velocity of joint7 is 2.7000 rad/s, limit 2.6100"]


def test_peaks_say_how_much_of_each_limit_was_used():
    gentle = dataclasses.replace(PANDA, acceleration=(10.0,) * 7)
    command = MIDDLE + 0.5 * 5.0 * (np.arange(10)[:, None] * DT) ** 2
    assert verify(rows(command), gentle, DT).peaks["commanded acceleration"] == pytest.approx(
        0.5, rel=1e-6
    )
