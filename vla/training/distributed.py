"""Several processes that train one model, each on its share of every batch (torchrun starts them)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import distributed, nn


def process_shard() -> tuple[int, int]:
    """Returns this process's number and how many there are; (0, 1) when there is but one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes; does nothing when there is but one."""
    _, count = process_shard()
    if count == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= count
