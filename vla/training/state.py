"""Everything beyond the model's weights that a run needs to go on bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla.errors import CheckpointError
from vla.training.optim import WeightAverage


def collect_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> dict[str, Tensor]:
    """Returns the live weights, the optimiser's moments and the random state as one flat dict of tensors."""
    tensors = {f"weights.{name}": p.detach() for name, p in model.named_parameters()}
    names = {id(p): name for name, p in model.named_parameters()}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            tensors[f"optimizer.{key}.{names[id(parameter)]}"] = torch.as_tensor(value)
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.weights.items()}
    tensors["random.torch"] = torch.get_rng_state()
    return tensors


@torch.no_grad()
def restore_state(
    tensors: dict[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> None:
    """Puts a state from `collect_state` back; CheckpointError names a tensor that is absent or misshapen."""
    for name, parameter in model.named_parameters():
        parameter.copy_(_take(tensors, f"weights.{name}", parameter.shape))
        if not parameter.requires_grad:
            continue
        moments = {
            "step": _take(tensors, f"optimizer.step.{name}", torch.Size([])),
            "exp_avg": _take(tensors, f"optimizer.exp_avg.{name}", parameter.shape),
            "exp_avg_sq": _take(tensors, f"optimizer.exp_avg_sq.{name}", parameter.shape),
        }
        step = moments.pop("step").to(parameter.device, copy=True)
        # laid out in memory as the parameter is: the fused optimiser walks both as they lie
        laid_out = {key: torch.empty_like(parameter).copy_(v) for key, v in moments.items()}
        optimizer.state[parameter] = {"step": step, **laid_out}
        if average is not None:
            average.weights[name].copy_(_take(tensors, f"average.{name}", parameter.shape))
    torch.set_rng_state(tensors["random.torch"])


def _take(tensors: dict[str, Tensor], key: str, shape: torch.Size) -> Tensor:
    if key not in tensors:
        raise CheckpointError(
            f"the training state has no tensor {key!r}; it was written with other frozen parts or another model: "
            "start a new run with init_from= instead of resume=true"
        )
    if tensors[key].shape != shape:
        raise CheckpointError(
            f"{key!r} has shape {tuple(tensors[key].shape)}, the model needs {tuple(shape)}"
        )
    return tensors[key]
