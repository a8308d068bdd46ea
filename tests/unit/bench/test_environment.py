"""Rates are taken over whole episodes."""

from types import SimpleNamespace

import numpy as np
from fakes import FakeEnv

from vla.bench.environment import measure_environment


class ThreeSteps(FakeEnv):
    """Ends after three steps, whatever is done."""

    max_steps = 3


def still() -> np.ndarray:
    return np.zeros(7, np.float32)


def test_episodes_are_run_to_their_end_until_there_are_enough_steps():
    expert = SimpleNamespace(reset=lambda rng: None, act=still)
    report = measure_environment(ThreeSteps(), expert, steps=7)
    assert report.episodes == 3
    assert report.steps_per_cpu_second > 0
    assert report.reset_cpu_ms >= 0
