import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.control.limiter import JointLimiter
from vla.control.limits import PANDA
from vla.errors import RobotError

DT, MARGIN = 0.01, 0.02
LOW, HIGH = np.asarray(PANDA.low) + MARGIN, np.asarray(PANDA.high) - MARGIN
VELOCITY, ACCELERATION = np.asarray(PANDA.velocity), np.asarray(PANDA.acceleration)
MIDDLE = (LOW + HIGH) / 2

shares = st.floats(0.0, 1.0)
targets = st.lists(st.floats(-1e9, 1e9), min_size=7, max_size=7).map(np.array)
commands = st.lists(st.one_of(targets, st.none()), min_size=1, max_size=30)  # None: brake


def new_limiter(joints: np.ndarray = MIDDLE) -> JointLimiter:
    limiter = JointLimiter(PANDA, DT, MARGIN)
    limiter.reset(joints)
    return limiter


def assert_within_limits(positions: np.ndarray) -> None:
    """Checks a row of commands (steps, 7), the first being where the joints rest, by plain differences."""
    velocity = np.diff(positions, axis=0) / DT
    acceleration = np.diff(np.vstack([np.zeros(7), velocity]), axis=0) / DT
    assert (positions >= LOW - 1e-12).all()
    assert (positions <= HIGH + 1e-12).all()
    assert (np.abs(velocity) <= VELOCITY * (1 + 1e-9)).all()
    assert (np.abs(acceleration) <= ACCELERATION * (1 + 1e-9)).all()


@settings(deadline=None, max_examples=60)
@given(start=st.lists(shares, min_size=7, max_size=7), wanted=commands, repeats=st.integers(1, 25))
def test_whatever_is_asked_for_positions_velocities_and_accelerations_stay_in_limits(
    start, wanted, repeats
):
    joints = LOW + np.array(start) * (HIGH - LOW)
    limiter = new_limiter(joints)
    positions = [joints]
    for target in wanted:
        for _ in range(repeats):
            limited = limiter.brake() if target is None else limiter.follow(target)
            positions.append(limited.joints)
    assert_within_limits(np.array(positions))


def test_limits_hold_over_many_random_commands():
    rng = np.random.default_rng(0)
    limiter = new_limiter()
    positions = [MIDDLE]
    target = MIDDLE
    for _ in range(3_000):
        if rng.random() < 0.2:
            target = rng.normal(0.0, 10.0 ** rng.uniform(-3, 6), 7)
        positions.append(limiter.follow(target).joints)
    assert_within_limits(np.array(positions))


def test_a_target_that_keeps_the_limits_is_met_exactly():
    limiter = new_limiter()
    time = np.arange(300) * DT
    swing = 0.1 * (1 - np.cos(2 * time))[:, None]  # at most 0.4 rad/s^2
    for target in MIDDLE + swing:
        limited = limiter.follow(target)
        np.testing.assert_allclose(limited.joints, target, atol=1e-12)
        assert not limited.is_limited


def test_a_far_target_is_reached_without_overshoot_and_as_fast_as_the_limits_permit():
    limiter = new_limiter()
    target = MIDDLE + 0.5
    positions = np.array([limiter.follow(target).joints for _ in range(300)])
    np.testing.assert_allclose(positions[-1], np.clip(target, LOW, HIGH), atol=1e-9)
    assert (positions <= np.clip(target, LOW, HIGH) + 1e-12).all()
    slowest = 2 * np.sqrt(0.5 / ACCELERATION.min())  # half the way speeding up, half braking
    arrived = np.argmax(np.abs(positions - positions[-1]).max(axis=1) < 1e-6) * DT
    assert slowest - 0.05 <= arrived <= slowest + 0.1


def test_a_joint_driven_at_its_stop_brakes_before_it():
    limiter = new_limiter()
    for _ in range(2000):
        limited = limiter.follow(np.full(7, 1e9))
    np.testing.assert_allclose(limited.joints, HIGH, atol=1e-6)
    assert (limited.joints <= HIGH).all()


def test_braking_comes_to_rest_in_the_time_that_the_deceleration_takes():
    limiter = new_limiter()
    while limiter.velocity.max() < 0.5:
        limiter.follow(MIDDLE + 1.0)
    speed = limiter.velocity.copy()
    steps = 0
    while limiter.velocity.any():
        limiter.brake()
        steps += 1
    needed = np.max(speed / ACCELERATION) / DT
    assert needed - 0.01 <= steps <= needed + 1.01


def test_each_limit_says_when_it_was_at_work():
    assert new_limiter().follow(MIDDLE + 1.0).by_acceleration.all()
    limiter = new_limiter()
    flags = [limiter.follow(np.full(7, 1e9)) for _ in range(600)]
    assert any(limited.by_velocity.any() for limited in flags)
    assert any(limited.by_position.any() for limited in flags)
    assert not new_limiter().follow(MIDDLE).is_limited


def test_a_start_beyond_a_limit_is_refused_with_joint_value_and_unit():
    with pytest.raises(
        RobotError, match=r"joint4 stands at 0\.5000 rad, outside \[-3\.0718, -0\.0698\] rad"
    ):
        new_limiter(np.array([0, 0, 0, 0.5, 0, 1, 0]))
    with pytest.raises(RobotError, match="joint1 stands at nan"):
        new_limiter(np.full(7, np.nan))


def test_a_start_inside_the_margin_only_moves_inwards():
    start = MIDDLE.copy()
    start[0] = PANDA.high[0] - 0.001
    limiter = new_limiter(start)
    positions = np.array([limiter.follow(start + 1.0).joints[0] for _ in range(200)])
    assert (positions <= start[0]).all()
    assert positions[-1] == pytest.approx(HIGH[0], abs=1e-6)


@pytest.mark.parametrize("dt", [1e-3, 2.5e-4])
def test_jerk_stays_in_its_limit_however_short_the_period(dt):
    limiter = JointLimiter(PANDA, dt, MARGIN)
    limiter.reset(MIDDLE)
    rng = np.random.default_rng(1)
    targets = np.repeat(rng.uniform(LOW, HIGH, (40, 7)), 50, axis=0)
    positions = np.array([MIDDLE, *(limiter.follow(target).joints for target in targets)])
    velocity = np.diff(positions, axis=0, prepend=MIDDLE[None]) / dt
    acceleration = np.diff(velocity, axis=0) / dt
    jerk = np.diff(acceleration, axis=0) / dt
    assert PANDA.jerk is not None
    assert (np.abs(acceleration) <= ACCELERATION * (1 + 1e-6)).all()
    assert (np.abs(jerk) <= np.array(PANDA.jerk) * (1 + 1e-3)).all()
    assert (np.abs(jerk).max(axis=0) > 0.9 * np.array(PANDA.jerk)).all() or dt > 3e-4
