"""Devices by name."""

import pytest
import torch

from vla.errors import ConfigError
from vla.nn.device import find_device


@pytest.mark.parametrize(("has_cuda", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_cuda_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, expected: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert find_device("auto").type == expected
    assert find_device("cpu").type == "cpu"


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' needs CUDA"):
        find_device("cuda")


def test_an_unknown_device_is_named():
    with pytest.raises(ConfigError, match="unknown device 'gpu0'; choose auto, cpu"):
        find_device("gpu0")
