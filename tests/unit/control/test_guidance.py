"""Guidance on a flow whose velocity is known in closed form: chunks are correlated Gaussians."""

import numpy as np
import pytest

from vla.control.guidance import guided_chunk

STEPS = 8
# Normalised actions, each resembling its neighbours: standard deviation 1, correlation 0.8 from one to the next.
COVARIANCE = 0.8 ** np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))
MEAN = np.linspace(-0.2, 0.2, STEPS)[:, None]


def velocity(chunk, time):
    """The exact velocity of the flow from N(0, 1) to N(MEAN, COVARIANCE): linear in the noisy chunk."""
    spread = time**2 * COVARIANCE + (1 - time) ** 2 * np.eye(STEPS)
    jacobian = (time * COVARIANCE - (1 - time) * np.eye(STEPS)) @ np.linalg.inv(spread)
    return MEAN + jacobian @ (chunk - time * MEAN), lambda vector: jacobian.T @ vector


def draw(settled, num_committed, seed=0, num_steps=50):
    noise = np.random.default_rng(seed).standard_normal((STEPS, 1))
    return guided_chunk(velocity, noise, settled, num_committed=num_committed, num_steps=num_steps)


def test_without_settled_actions_it_is_the_flow_itself():
    ends = np.array([draw(np.zeros((0, 1)), 0, seed) for seed in range(1000)])[..., 0]
    np.testing.assert_allclose(ends.mean(axis=0), MEAN[:, 0], atol=0.12)
    np.testing.assert_allclose(np.cov(ends.T), COVARIANCE, atol=0.15)


@pytest.mark.parametrize("num_steps", [5, 10, 50])
def test_a_chunk_begins_with_the_committed_actions(num_steps):
    settled = np.array([[1.5], [2.0], [2.0]])
    for seed in range(5):
        np.testing.assert_allclose(draw(settled, 3, seed, num_steps)[:3], settled, atol=0.35)


def test_the_rest_goes_on_from_where_the_committed_actions_end():
    settled = np.full((3, 1), 2.0)
    after = np.mean([draw(settled, 3, seed)[3:, 0] for seed in range(200)], axis=0)
    # The exact mean given the last settled action; guidance is an approximation of it. Unguided it is MEAN.
    given = MEAN[3:, 0] + 0.8 ** np.arange(1, 6) * (2.0 - MEAN[2, 0])
    np.testing.assert_allclose(after, given, atol=0.45)
    assert (np.diff(after) < 0).all()


def test_actions_that_are_not_known_are_not_drawn_towards_zero():
    settled = np.full((2, 1), 2.0)
    free = np.mean([draw(settled, 2, seed)[2:] for seed in range(100)])
    padded = np.vstack([settled, np.zeros((STEPS - 2, 1))])
    drawn = np.mean([draw(padded, STEPS, seed)[2:] for seed in range(100)])
    assert free > 0.8
    assert drawn < 0.3


def test_more_settled_actions_than_the_chunk_is_long_do_no_harm():
    np.testing.assert_allclose(draw(np.ones((STEPS + 3, 1)), STEPS + 3), 1.0, atol=0.35)


def test_few_denoising_steps_stay_finite():
    assert np.abs(draw(np.full((4, 1), 3.0), 4, num_steps=5)).max() < 10
