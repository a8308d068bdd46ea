"""The four families in one place: from a config to its model, and from a family's name to its config."""

from __future__ import annotations

from typing import Any

from vla.errors import ConfigError, unknown_name
from vla.models.backbones.gemma4 import Gemma4
from vla.models.backbones.gemma4_config import Gemma4Config
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.paligemma_config import PaliGemmaConfig
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.backbones.qwen2_vl import Qwen2VL
from vla.models.backbones.qwen2_vl_config import Qwen2VLConfig
from vla.models.config_dict import config_from_dict
from vla.tokenizers.prompt_answer import PromptFamily as Family

AnyConfig = PrismaticConfig | PaliGemmaConfig | Qwen2VLConfig | Gemma4Config
AnyBackbone = Prismatic | PaliGemma | Qwen2VL | Gemma4

_CONFIGS: dict[Family, type[AnyConfig]] = {
    Family.PRISMATIC: PrismaticConfig,
    Family.PALIGEMMA: PaliGemmaConfig,
    Family.QWEN2_VL: Qwen2VLConfig,
    Family.GEMMA4: Gemma4Config,
}


def build_backbone(config: AnyConfig) -> AnyBackbone:
    """Returns a model of this shape with fresh weights, drawn from torch's generator."""
    match config:
        case PrismaticConfig():
            return Prismatic(config)
        case PaliGemmaConfig():
            return PaliGemma(config)
        case Qwen2VLConfig():
            return Qwen2VL(config)
        case Gemma4Config():
            return Gemma4(config)


def family_of(config: AnyConfig) -> Family:
    """Returns the family of a shape."""
    match config:
        case PrismaticConfig():
            return Family.PRISMATIC
        case PaliGemmaConfig():
            return Family.PALIGEMMA
        case Qwen2VLConfig():
            return Family.QWEN2_VL
        case Gemma4Config():
            return Family.GEMMA4


def backbone_config_from_dict(family: str, values: dict[str, Any]) -> AnyConfig:
    """Returns the shape that `config_to_dict` wrote of a family.

    Raises:
        ConfigError: there is no such family, or a field that this version does not know.
    """
    names = {member.value: member for member in Family}
    if family not in names:
        raise ConfigError(unknown_name("model family", family, names))
    return config_from_dict(_CONFIGS[names[family]], values)
