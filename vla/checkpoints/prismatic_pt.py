"""The native file of Prismatic and OpenVLA training: {"model": {module: {name: tensor}}, ...}, saved by torch.

This is the one pickle that is read, and only by torch's loader that makes nothing but tensors and plain containers.
Source: openvla/openvla c8f03f4, prismatic/training/strategies/fsdp.py.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor

from vla.errors import CheckpointError


def read(path: Path) -> dict[str, Tensor]:
    """Returns the weights by name, such as `projector.projector.0.weight`; they stay on disk until they are used.

    Raises:
        CheckpointError: the file is missing, truncated, of another form, or holds something other than plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, BadZipFile, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as plain weights ({reason}); copy it again, or convert it where it was made"
        ) from None
    modules = content.get("model") if isinstance(content, dict) else None
    if not isinstance(modules, dict) or not all(isinstance(m, dict) for m in modules.values()):
        raise CheckpointError(
            f'{path} is no checkpoint of Prismatic: it has no "model" with a dict for each module'
        )
    return {
        f"{module}.{name}": tensor
        for module, weights in modules.items()
        for name, tensor in weights.items()
    }
