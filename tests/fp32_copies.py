"""Watches a model in bf16 for copies of its weights in fp32."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Fp32Copies(TorchDispatchMode):
    """Notes the shape of everything that is copied to fp32 while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.dtype is torch.float32:
            self.shapes.add(tuple(result.shape))
        return result

    def of_matrices(self, model: nn.Module) -> set[tuple[int, ...]]:
        """Returns the shapes noted that some matrix of the model has."""
        return self.shapes & {tuple(p.shape) for p in model.parameters() if p.dim() > 1}
