"""Checkpoints of models that answer: kind "vlm". The mask codec travels with the model; its masks mean nothing without.

model.safetensors   weights of the backbone; those of the codec under "mask_codec."
config.json         beside what every checkpoint has: "mask_codec" (its shape, absent if there is none),
                    "max_instruction_tokens", "system_text"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from vla.checkpoints.folder import CONFIG, Folder, fill, load_folder
from vla.errors import CheckpointError, ConfigError
from vla.models.backbones.families import (
    AnyBackbone,
    backbone_config_from_dict,
    build_backbone,
    family_of,
)
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.models.mask_codec import MaskCodec, MaskCodecConfig
from vla.tokenizers.prompt_answer import AnswerPrompts

KIND = "vlm"
_CODEC = "mask_codec."


@dataclass(kw_only=True)
class Answerable:
    """A model that answers, and what it takes to ask it.

    Attributes:
        codec: what its mask tokens mean; None if it has learnt none.
        max_instruction_tokens: that a prompt may have.
    """

    backbone: AnyBackbone
    tokenizer: Tokenizer
    prompts: AnswerPrompts
    codec: MaskCodec | None
    max_instruction_tokens: int

    def described(self) -> dict[str, Any]:
        """Returns what config.json says beside kind and model."""
        values: dict[str, Any] = {"max_instruction_tokens": self.max_instruction_tokens}
        if self.prompts.system_text:
            values["system_text"] = self.prompts.system_text
        if self.codec is not None:
            values["mask_codec"] = config_to_dict(self.codec.config)
        return values

    def tensors(self) -> dict[str, Tensor]:
        """Returns all weights by name."""
        tensors = dict(self.backbone.state_dict())
        if self.codec is not None:
            tensors |= {f"{_CODEC}{name}": value for name, value in self.codec.state_dict().items()}
        return tensors


def load_answerable(directory: Path) -> Answerable:
    """Returns the model in `directory`, or, given a training run's folder, its newest one: on the CPU, ready to ask.

    Raises:
        CheckpointError: nothing there, of another kind, or a file is missing, truncated or altered; names the file.
    """
    folder = load_folder(directory, kind=KIND)
    where, described = folder.directory / CONFIG, folder.described
    try:
        model = described["model"]
        config = backbone_config_from_dict(model["family"], model["config"])
        codec_config = described.get("mask_codec")
        codec = None if codec_config is None else config_from_dict(MaskCodecConfig, codec_config)
        longest = int(described["max_instruction_tokens"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{where} does not describe a model that answers, of this version: {error}; use the version that wrote it"
        ) from None
    if folder.tokenizer is None:
        raise CheckpointError(f"{folder.directory} has no tokenizer; copy the checkpoint again")
    return Answerable(
        backbone=fill(lambda: build_backbone(config), _weights(folder, is_codec=False)),
        tokenizer=folder.tokenizer,
        prompts=AnswerPrompts(
            folder.tokenizer, family_of(config), described.get("system_text", "")
        ),
        codec=None if codec is None else _codec(folder, codec),
        max_instruction_tokens=longest,
    )


def _codec(folder: Folder, config: MaskCodecConfig) -> MaskCodec:
    return fill(lambda: MaskCodec(config), _weights(folder, is_codec=True))


def _weights(folder: Folder, *, is_codec: bool) -> dict[str, Tensor]:
    return {
        name.removeprefix(_CODEC): value
        for name, value in folder.tensors.items()
        if name.startswith(_CODEC) == is_codec
    }
