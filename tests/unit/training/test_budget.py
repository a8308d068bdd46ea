"""A run ends with its steps, its wall clock or its processor time, and its rate falls with what ends it."""

import time
from typing import Any

import pytest
import torch
from torch import nn

from vla.training.config import OptimConfig, Precision, TrainingConfig
from vla.training.loop import train


class Numbers:
    """A batch, and batches of it."""

    def to(self, device: torch.device) -> "Numbers":
        return self

    def prefetch(self, start_step: int, end_step: int):
        return iter([self] * (end_step - start_step))


class Rates:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.rates.append(metrics["learning_rate"])

    def close(self) -> None: ...


def busy(forward: Any, batch: Numbers) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A loss that takes processor time, and no more wall clock than that."""
    begun = time.process_time()
    while time.process_time() - begun < 0.01:
        pass
    return forward(torch.ones(1, 2)).square().sum(), {}


def idle(forward: Any, batch: Numbers) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A loss that waits."""
    time.sleep(0.01)
    return forward(torch.ones(1, 2)).square().sum(), {}


def run(objective: Any, **budget: Any) -> tuple[Any, list[float]]:
    cfg = TrainingConfig(
        steps=100_000, precision=Precision.FP32, num_threads=1, log_every=1, checkpoint_every=100_000,
        optim=OptimConfig(warmup_steps=1, ema_decay=0), **budget,
    )  # fmt: skip
    tracker = Rates()
    done = train(
        nn.Linear(2, 1),
        objective,
        Numbers(),
        cfg,
        validate=None,
        tracker=tracker,
        save=lambda *_: None,
    )
    return done, tracker.rates


def test_a_budget_of_processor_time_ends_the_run_and_brings_the_rate_down():
    done, rates = run(busy, max_cpu_seconds=0.3)
    assert 0.3 <= done.cpu_seconds < 0.6
    assert 5 < done.step < 60
    assert rates[-1] < 0.1 * max(rates)


def test_waiting_costs_no_processor_time():
    done, _ = run(idle, max_cpu_seconds=0.2, max_seconds=0.5)
    assert done.seconds >= 0.5
    assert done.cpu_seconds < 0.2


@pytest.mark.parametrize(("cpu_seconds", "seconds"), [(0.1, 60.0), (60.0, 0.1)])
def test_whichever_budget_is_used_up_first_counts(cpu_seconds, seconds):
    begun = time.monotonic()
    run(busy, max_cpu_seconds=cpu_seconds, max_seconds=seconds)
    assert time.monotonic() - begun < 20
