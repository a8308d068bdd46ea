"""What a model costs: operations, processor time of training and acting, memory.

Ratios travel between machines, times do not. Times are process CPU time on one thread, best of several
rounds with the arms interleaved, because wall clock on a shared machine measures the neighbours.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from vla.inference.engine import ActionEngine
from vla.losses.suffix import action_cross_entropy
from vla.models.backbones.prismatic import Prismatic


@dataclass(kw_only=True)
class SpeedReport:
    """Costs of one model.

    Attributes:
        train_samples_per_cpu_second: arithmetic ("fp32", "bf16") to samples, forward and backward.
        action_cpu_ms: processor time from one observation's tensors to its chunk of bins.
        peak_memory_mb: largest resident size of this process so far.
    """

    parameters: int
    forward_mflop: float
    train_mflop: float
    train_samples_per_cpu_second: dict[str, float]
    action_cpu_ms: float
    actions_per_chunk: int
    peak_memory_mb: float


def measure_speed(
    model: Prismatic, *, batch_size: int = 64, num_text_tokens: int = 10, rounds: int = 5
) -> SpeedReport:
    """Returns the costs of `model` on random input; its weights stay as they are."""
    torch.set_num_threads(1)
    many = _Inputs(model, batch_size, num_text_tokens)
    one = _Inputs(model, 1, num_text_tokens)
    engine = ActionEngine(model=model)
    arms = {
        "fp32": lambda: many.train_step(torch.float32),
        "bf16": lambda: many.train_step(torch.bfloat16),
        "action": lambda: engine.predict(one.images, one.text_ids, one.text_valid, one.state),
    }
    best = _best_cpu_seconds(arms, rounds)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        one.forward()
    with FlopCounterMode(display=False) as both:
        one.train_step(torch.float32)
    model.zero_grad(set_to_none=True)
    return SpeedReport(
        parameters=sum(p.numel() for p in model.parameters()),
        forward_mflop=forward.get_total_flops() / 1e6,
        train_mflop=both.get_total_flops() / 1e6,
        train_samples_per_cpu_second={a: batch_size / best[a] for a in ("fp32", "bf16")},
        action_cpu_ms=1e3 * best["action"],
        actions_per_chunk=model.config.chunk_length,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


class _Inputs:
    """Random input of a model's shape."""

    def __init__(self, model: Prismatic, batch_size: int, num_text_tokens: int) -> None:
        config, generator = model.config, torch.Generator().manual_seed(0)
        size, B = config.image_size, batch_size
        self.model = model
        self.images = torch.randint(
            0, 256, (B, config.num_views, size, size, 3), generator=generator, dtype=torch.uint8
        ).permute(0, 1, 4, 2, 3)
        self.text_ids = torch.randint(
            0, config.text_vocab_size, (B, num_text_tokens), generator=generator
        )
        self.text_valid = torch.ones_like(self.text_ids, dtype=torch.bool)
        self.state = torch.randn(B, config.state_width, generator=generator)
        self.bins = torch.randint(
            0, 256, (B, config.chunk_length, config.action_width), generator=generator
        )

    def forward(self) -> torch.Tensor:
        output = self.model(
            self.images, self.text_ids, self.text_valid, self.state, action_bins=self.bins
        )
        valid = torch.ones(self.bins.shape[:2], dtype=torch.bool)
        return action_cross_entropy(output.action_logits, self.bins, valid)

    def train_step(self, dtype: torch.dtype) -> None:
        self.model.train()
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            loss = self.forward()
        loss.backward()
        self.model.zero_grad(set_to_none=True)


def _best_cpu_seconds(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    for work in arms.values():
        work()
    best = dict.fromkeys(arms, float("inf"))
    for _ in range(rounds):
        for name, work in arms.items():
            begun = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - begun)
    return best
