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
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from vla.inference.engine import ActionEngine
from vla.losses.continuous import draw_flow, flow_matching_loss, l1_loss
from vla.losses.suffix import action_cross_entropy, token_cross_entropy
from vla.models.action_config import ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.tokenizers.fast import FastTokenizer


@dataclass(kw_only=True)
class SpeedReport:
    """Costs of one model.

    Attributes:
        image_tokens: of one picture.
        train_samples_per_cpu_second: arithmetic ("fp32", "bf16") to samples, forward and backward.
        action_cpu_ms: processor time from one observation's tensors to its chunk of actions.
        peak_memory_mb: largest resident size of this process so far.
    """

    parameters: int
    image_tokens: int
    forward_mflop: float
    train_mflop: float
    train_samples_per_cpu_second: dict[str, float]
    action_cpu_ms: float
    actions_per_chunk: int
    peak_memory_mb: float


def measure_speed(
    model: VisionLanguageAction,
    prompt: Int[Tensor, " text"],
    views: tuple[int, int],
    *,
    batch_size: int = 64,
    rounds: int = 5,
    fast: FastTokenizer | None = None,
    end_id: int | None = None,
) -> SpeedReport:
    """Returns the costs of `model` on random pictures; its weights stay as they are.

    Args:
        model: of any family.
        prompt: tokens of an instruction in the family's form, without padding.
        views: how many pictures, and their side in pixels.
        batch_size: samples of a training step.
        rounds: repetitions, of which the best counts.
        fast: tokenizer of a model that decodes with FAST. How many tokens a chunk takes depends on what it says; here
            on random weights or pictures, so time it on a trained model.
        end_id: what such a model writes after a chunk.
    """
    torch.set_num_threads(1)
    many = _Inputs(model, prompt, views, batch_size, fast)
    one = _Inputs(model, prompt, views, 1, fast)
    engine = ActionEngine(model=model, fast=fast, end_id=end_id)
    arms = {
        "fp32": lambda: many.train_step(torch.float32),
        "bf16": lambda: many.train_step(torch.bfloat16),
        "action": lambda: engine.chunk(one.images, one.text_ids, one.text_valid, one.state),
    }
    best = _best_cpu_seconds(arms, rounds)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        one.forward()
    with FlopCounterMode(display=False) as both:
        one.train_step(torch.float32)
    model.zero_grad(set_to_none=True)
    return SpeedReport(
        parameters=sum(p.numel() for p in model.parameters()),
        image_tokens=model.backbone.num_image_tokens((3, views[1], views[1])),
        forward_mflop=forward.get_total_flops() / 1e6,
        train_mflop=both.get_total_flops() / 1e6,
        train_samples_per_cpu_second={a: batch_size / best[a] for a in ("fp32", "bf16")},
        action_cpu_ms=1e3 * best["action"],
        actions_per_chunk=model.config.chunk_length,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


class _Inputs:
    """One prompt, random pictures and actions of a model's shape."""

    def __init__(
        self,
        model: VisionLanguageAction,
        prompt: Tensor,
        views: tuple[int, int],
        batch_size: int,
        fast: FastTokenizer | None,
    ) -> None:
        config, generator = model.config, torch.Generator().manual_seed(0)
        (num_views, size), B = views, batch_size
        self.model = model
        self.images = torch.randint(
            0, 256, (B, num_views, size, size, 3), generator=generator, dtype=torch.uint8
        ).permute(0, 1, 4, 2, 3)
        self.text_ids = prompt.repeat(B, 1)
        self.text_valid = torch.ones_like(self.text_ids, dtype=torch.bool)
        self.state = torch.randn(B, config.state_width, generator=generator)
        shape = (B, config.chunk_length, config.action_width)
        self.bins = torch.randint(0, 256, shape, generator=generator)
        self.actions = 2 * torch.rand(shape, generator=generator) - 1
        self.valid = torch.ones(shape[:2], dtype=torch.bool)
        self.fast_tokens = None
        if fast is not None:
            slow = self.actions.mean(dim=1, keepdim=True).expand(shape)  # noise takes more tokens
            rows = [torch.tensor(row) for row in fast.encode(slow.numpy())]
            self.fast_tokens = pad_sequence(rows, batch_first=True, padding_value=-1)

    def forward(self) -> torch.Tensor:
        """Returns the loss that the model is trained with, without its auxiliary terms."""
        inputs = (self.images, self.text_ids, self.text_valid, self.state)
        match self.model.config.decoding:
            case ActionDecoding.PARALLEL:
                output = self.model(*inputs, action_bins=self.bins)
                return action_cross_entropy(output.action_logits, self.bins, self.valid)
            case ActionDecoding.L1:
                return l1_loss(self.model(*inputs).actions, self.actions, self.valid)
            case ActionDecoding.FLOW:
                draw = draw_flow(self.actions)
                output = self.model(*inputs, noisy=draw.noisy, time=draw.time)
                return flow_matching_loss(output.velocity, draw.velocity, self.valid)
            case ActionDecoding.AUTOREGRESSIVE:
                output = self.model(*inputs, action_bins=self.bins)
                is_label = torch.ones_like(output.token_ids, dtype=torch.bool)
            case ActionDecoding.FAST:
                output = self.model(*inputs, fast_tokens=self.fast_tokens)
                assert self.fast_tokens is not None
                is_label = self.fast_tokens >= 0
        return token_cross_entropy(output.token_logits[:, :-1], output.token_ids, is_label)

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
