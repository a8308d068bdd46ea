"""The backbones that can be named: released shapes and small ones. Imports torch, so import it when a verb runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vla.errors import ConfigError, unknown_name
from vla.models.backbones import gemma4_config as gemma4
from vla.models.backbones import paligemma_config as paligemma
from vla.models.backbones import prismatic_config as prismatic
from vla.models.backbones import qwen2_vl_config as qwen2_vl
from vla.models.backbones.families import AnyBackbone, AnyConfig, Family, build_backbone

FAMILY_NAMES = {
    Family.PRISMATIC: "Prismatic",
    Family.PALIGEMMA: "PaliGemma",
    Family.QWEN2_VL: "Qwen2-VL",
    Family.GEMMA4: "Gemma 4",
}

SMALL_BACKBONES: dict[str, Callable[[int], AnyConfig]] = {  # given the number of text tokens
    "tiny": prismatic.tiny,
    "paligemma_tiny": paligemma.tiny_paligemma,
    "qwen2_vl_tiny": qwen2_vl.tiny,
    "qwen2_vl_textbook_tiny": partial(qwen2_vl.tiny, is_textbook=True),
    "gemma4_tiny": gemma4.tiny_gemma4,
    "gemma4_encoder_tiny": gemma4.tiny_gemma4_encoder,
    "gemma4_spatial_tiny": gemma4.tiny_gemma4_spatial,
}
_SMALL_VOCAB_SIZE = 512
BACKBONES: dict[str, Callable[[], AnyConfig]] = {
    **{name: partial(make, _SMALL_VOCAB_SIZE) for name, make in SMALL_BACKBONES.items()},
    "openvla_7b": prismatic.openvla_7b,
    "paligemma_3b_224": partial(paligemma.paligemma_3b, 224),
    "paligemma_3b_448": partial(paligemma.paligemma_3b, 448),
    "paligemma_3b_896": partial(paligemma.paligemma_3b, 896),
    "paligemma2_3b_224": partial(paligemma.paligemma2_3b, 224),
    "paligemma2_3b_448": partial(paligemma.paligemma2_3b, 448),
    "paligemma2_3b_896": partial(paligemma.paligemma2_3b, 896),
    "qwen2_vl_2b": qwen2_vl.qwen2_vl_2b,
    "qwen2_vl_7b": qwen2_vl.qwen2_vl_7b,
    "gemma4_e2b": gemma4.gemma4_e2b,
    "gemma4_e4b": gemma4.gemma4_e4b,
    "gemma4_31b": gemma4.gemma4_31b,
    "gemma4_12b_unified": gemma4.gemma4_12b_unified,
}


def backbone_config(name: str) -> AnyConfig:
    """Returns the shape that a name stands for; raises ConfigError for an unknown one, with all there are."""
    if name not in BACKBONES:
        raise ConfigError(unknown_name("backbone", name, BACKBONES))
    return BACKBONES[name]()


def build_shape(config: AnyConfig) -> AnyBackbone:
    """Returns a model of this shape on the meta device: weights without numbers, which take no memory."""
    with torch.device("meta"), _Unfilled():
        return build_backbone(config)


class _Unfilled(TorchFunctionMode):
    """Skips torch.nn.init: there is nothing to fill on the meta device, and drawing numbers for it makes torch import
    its compiler, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        is_filling = func in (torch.Tensor.normal_, torch.Tensor.uniform_)
        if is_filling or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
