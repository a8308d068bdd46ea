"""Where tensors live."""

from __future__ import annotations

import torch

from vla.errors import ConfigError


def find_device(name: str) -> torch.device:
    """Returns the device called `name`, where "auto" is the first CUDA device or else the CPU.

    Raises:
        ConfigError: no such kind of device, or CUDA on a machine without it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} needs CUDA, which this machine lacks; use device=cpu")
    return device
