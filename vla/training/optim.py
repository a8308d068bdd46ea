"""AdamW, its schedule, and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from vla.training.config import OptimConfig


def build_optimizer(model: nn.Module, cfg: OptimConfig) -> torch.optim.AdamW:
    """Returns AdamW over the trainable parameters; weight decay on matrices, not on gains or biases."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": cfg.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=cfg.learning_rate,
        betas=(cfg.beta1, cfg.beta2),
        fused=True,
    )


def learning_rate(cfg: OptimConfig, step: int, progress: float) -> float:
    """Returns the rate at a step: linear warm-up, then a cosine from the peak to its final fraction.

    Args:
        step: steps done so far.
        progress: share of the run that is done, 0 to 1.
    """
    warm = min(1.0, (step + 1) / max(1, cfg.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    floor = cfg.final_learning_rate_fraction
    return cfg.learning_rate * warm * (floor + (1 - floor) * cosine)


class WeightAverage:
    """Exponential moving average of a model's parameters: what acts and is evaluated, while the raw weights train."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the live weights; early steps count more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, live in self._live.items():
            self.weights[name].lerp_(live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges average and live weights; calling it twice restores both."""
        for name, live in self._live.items():
            kept = live.detach().clone()
            live.copy_(self.weights[name])
            self.weights[name].copy_(kept)
