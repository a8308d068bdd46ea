"""What one training run is: data, optimisation, schedule, stage and bookkeeping, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vla.errors import ConfigError


class Precision(Enum):
    """Arithmetic of the forward and backward pass; weights and optimiser state are always fp32."""

    AUTO = "auto"  # bf16 where the processor multiplies it natively, else fp32
    FP32 = "fp32"
    BF16 = "bf16"


class Part(Enum):
    """The parts of a backbone that a stage can freeze."""

    VISION = "vision"
    CONNECTOR = "connector"
    DECODER = "decoder"


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3  # peak
    final_learning_rate_fraction: float = 0.02  # of the peak, reached at the last step
    warmup_steps: int = 200  # linear from zero
    weight_decay: float = 0.05  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.98
    gradient_clip_norm: float = 1.0  # global norm
    ema_decay: float = 0.999  # moving average of the weights, the ones that act; 0 turns it off


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the named loss terms."""

    sigma_bins: float = 2.0  # width of the Gaussian target over neighbouring bins; 0 = one-hot
    pointing_weight: float = 0.3  # which image token shows the named object
    position_weight: float = 0.3  # where the named object is, seen from the tool


@dataclass(kw_only=True)
class TrainingConfig:
    """One run of `vla.training.loop.train`."""

    steps: int = 20_000  # optimiser steps
    batch_size: int = 128  # samples a step
    max_seconds: float | None = None  # wall clock budget; the schedule then ends at whichever comes first
    seed: int = 0  # weights, order of samples, augmentation
    precision: Precision = Precision.AUTO
    num_threads: int = 0  # 0 = one per core
    compile: bool = False  # torch.compile the model; needs a C++ compiler, pays off after some thousand steps
    frozen_parts: list[Part] = field(default_factory=list)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    log_every: int = 50  # steps
    validate_every: int = 1000  # steps
    validation_batches: int = 20
    checkpoint_every: int = 1000  # steps

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} must be at least 1; got {getattr(self, name)}")
        if not 0 <= self.optim.ema_decay < 1:
            raise ConfigError(f"training.optim.ema_decay must lie in [0, 1); got {self.optim.ema_decay}")
