"""The training loop: step, log, validate, checkpoint, and go on after a kill as if nothing had happened."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.nn.device import find_device
from vla.training.config import Precision, TrainingConfig
from vla.training.distributed import average_gradients
from vla.training.optim import WeightAverage, build_optimizer, learning_rate
from vla.training.state import collect_state, restore_state
from vla.training.track import Metrics, Tracker

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Progressed:
    """How far a run is."""

    step: int = 0  # optimiser steps done
    seconds: float = 0.0  # wall clock in the loop, over all resumes
    cpu_seconds: float = 0.0  # processor time likewise, without validation
    metrics: Metrics = field(default_factory=dict)  # last validation

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "metrics": self.metrics,
        }


SaveCheckpoint = Callable[[nn.Module, dict[str, torch.Tensor], Progressed], None]


class Batch(Protocol):
    """What one step sees."""

    def to(self, device: torch.device) -> Self: ...


class BatchSource[B: Batch](Protocol):
    """Batches by step number, always the same for the same number."""

    def prefetch(self, start_step: int, end_step: int) -> Iterator[B]: ...


class TrainingObjective[B: Batch](Protocol):
    """Turns a batch into the loss and its named, unweighted terms; `forward` is the model, compiled or not."""

    def __call__(
        self, forward: Callable[..., Any], batch: B, /
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


def train[B: Batch](
    model: nn.Module,
    objective: TrainingObjective[B],
    batches: BatchSource[B],
    cfg: TrainingConfig,
    *,
    validate: Callable[[nn.Module], Metrics] | None,
    tracker: Tracker,
    save: SaveCheckpoint,
    resume: tuple[dict[str, torch.Tensor], Progressed] | None = None,
) -> Progressed:
    """Trains `model` in place and returns how far it got; on return the weights are their moving average.

    Args:
        objective: turns a batch into named loss terms.
        batches: training samples, addressed by step, so that a resumed run sees the same ones.
        validate: measures the model, holding its averaged weights, on held-out episodes.
        save: writes one checkpoint; it sees the model with its averaged weights and the state to resume from.
        resume: state and progress of an earlier run.

    Raises:
        ConfigError: the gradient is no longer finite, or `compile` is asked for and there is no compiler.
    """
    if cfg.compile and not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        raise ConfigError(
            "training.compile=true needs a C++ compiler and none of g++, c++, clang++ is on the PATH; "
            "install one or set training.compile=false"
        )
    torch.set_num_threads(cfg.num_threads or torch.get_num_threads())
    model.to(find_device(cfg.device))
    optimizer = build_optimizer(model, cfg.optim)
    average = WeightAverage(model, cfg.optim.ema_decay) if cfg.optim.ema_decay else None
    done = Progressed()
    if resume is not None:
        restore_state(resume[0], model, optimizer, average)
        done = resume[1]
    run = _Run(model, objective, optimizer, average, cfg, tracker, done)
    if validate is not None and resume is None:
        run.validate(validate, done)  # where it starts from: telling when it fine-tunes
    with _progress_bar(cfg.steps, done.step) as show:
        for batch in batches.prefetch(done.step, cfg.steps):
            run.step(batch, done)
            show(done, run.recent)
            finished = done.step >= cfg.steps or _out_of_time(cfg, done)
            if validate is not None and (finished or done.step % cfg.validate_every == 0):
                done.metrics = run.validate(validate, done)
            if finished or done.step % cfg.checkpoint_every == 0:
                state = collect_state(model, optimizer, average)
                state = {name: value.clone() for name, value in state.items()}
                with run.averaged_weights():
                    save(model, state, done)
            if finished:
                break
    if average is not None:
        average.swap()
    return done


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """Returns the dtype of the forward pass; AUTO takes bf16 only where the processor multiplies it natively."""
    if precision is Precision.AUTO:
        native = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32


class _Run[B: Batch]:
    """The moving parts of one run."""

    def __init__(
        self,
        model: nn.Module,
        objective: TrainingObjective[B],
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
        cfg: TrainingConfig,
        tracker: Tracker,
        done: Progressed,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.average, self.cfg, self.tracker = average, cfg, tracker
        self.device = find_device(cfg.device)
        self.dtype = arithmetic(cfg.precision, self.device)
        self.forward = torch.compile(model) if cfg.compile else model
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self._seconds_before, self._begun = done.seconds, time.monotonic()
        self._cpu_before, self._cpu_begun = done.cpu_seconds, time.process_time()
        self.recent: Metrics = {}
        self._sums: Metrics = {}
        self._count = 0

    def step(self, batch: B, done: Progressed) -> None:
        rate = learning_rate(self.cfg.optim, done.step, _share(self.cfg, done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        with self._autocast():
            loss, terms = self.objective(self.forward, batch.to(self.device))
        loss.backward()
        average_gradients(self.trainable)
        norm = nn.utils.clip_grad_norm_(self.trainable, self.cfg.optim.gradient_clip_norm)
        if not math.isfinite(float(norm)):
            raise ConfigError(
                f"the gradient is not finite at step {done.step} (loss {loss.item():.4g}); "
                f"lower training.optim.learning_rate (now {self.cfg.optim.learning_rate:g}) and resume"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(done.step)
        done.step += 1
        done.seconds = self._seconds_before + time.monotonic() - self._begun
        done.cpu_seconds = self._cpu_before + time.process_time() - self._cpu_begun
        values = {name: float(value.detach()) for name, value in {"loss": loss, **terms}.items()}
        self._log({**values, "gradient_norm": float(norm)}, rate, done)

    def validate(self, measure: Callable[[nn.Module], Metrics], done: Progressed) -> Metrics:
        begun = time.process_time()
        with self.averaged_weights(), self._autocast():
            metrics = measure(self.model)
        self._cpu_begun += (
            time.process_time() - begun
        )  # measuring is no training: budgets are for steps
        self.tracker.log(
            {f"validation/{name}": value for name, value in metrics.items()}, done.step
        )
        shown = ", ".join(
            f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name
        )
        logger.info("step %d: %s", done.step, shown)
        return metrics

    def _autocast(self) -> torch.autocast:
        is_on = self.dtype is torch.bfloat16
        return torch.autocast(self.device.type, self.dtype, enabled=is_on)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Lets the model hold its averaged weights meanwhile."""
        if self.average is None:
            yield
            return
        self.average.swap()
        try:
            yield
        finally:
            self.average.swap()

    def _log(self, metrics: Metrics, rate: float, done: Progressed) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if done.step % self.cfg.log_every == 0:
            self.recent = {name: total / self._count for name, total in self._sums.items()}
            samples = done.step * self.cfg.batch_size
            per_cpu_second = samples / max(done.cpu_seconds, 1e-9)
            self.tracker.log(
                {
                    **{f"train/{name}": value for name, value in self.recent.items()},
                    "learning_rate": rate,
                    "samples": samples,
                    "seconds": done.seconds,
                    "samples_per_cpu_second": per_cpu_second,
                },
                done.step,
            )
            self._sums, self._count = {}, 0


def _share(cfg: TrainingConfig, done: Progressed) -> float:
    """Returns how much of the run is done: by its steps, or by the budget of time it has used up more of."""
    budgets = ((cfg.max_seconds, done.seconds), (cfg.max_cpu_seconds, done.cpu_seconds))
    return max(done.step / cfg.steps, *(used / limit if limit else 0.0 for limit, used in budgets))


def _out_of_time(cfg: TrainingConfig, done: Progressed) -> bool:
    budgets = ((cfg.max_seconds, done.seconds), (cfg.max_cpu_seconds, done.cpu_seconds))
    return any(limit is not None and used >= limit for limit, used in budgets)


@contextmanager
def _progress_bar(steps: int, start: int) -> Iterator[Callable[[Progressed, Metrics], None]]:
    """Gives a function that shows step, loss and remaining time."""
    columns = (
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=steps, completed=start, note="")

        def show(done: Progressed, recent: Metrics) -> None:
            note = f"loss {recent['loss']:.3f}" if "loss" in recent else ""
            bar.update(task, completed=done.step, note=note)

        yield show
