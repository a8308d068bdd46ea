"""Our own policies on disk: a model and everything it needs to act, in a folder (`vla.checkpoints.folder`).

config.json says which backbone ("family" and "config") and how it acts ("actions"). Version 1 knew only Prismatic, and
is read through a literal table of names (`vla.checkpoints.maps.version1`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vla.checkpoints import folder as folders
from vla.checkpoints.contract import Contract
from vla.checkpoints.folder import (
    CONFIG,
    TrainingState,
    WeightsDtype,
    fill,
    find,
    load_folder,
    save_folder,
)
from vla.checkpoints.maps import version1
from vla.errors import CheckpointError, ConfigError
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.families import (
    AnyBackbone,
    AnyConfig,
    backbone_config_from_dict,
    build_backbone,
    family_of,
)
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.tokenizers.prompt_action import InstructionPrompts

__all__ = [
    "CONFIG", "LoadedCheckpoint", "TrainingState", "WeightsDtype", "find", "instruction_prompts", "load",
    "load_training_state", "read_config", "save",
]  # fmt: skip
KIND = "policy"


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A model and everything it needs to act."""

    directory: Path
    model: VisionLanguageAction
    contract: Contract
    tokenizer: Tokenizer

    @property
    def prompt_encoder(self) -> InstructionPrompts:
        """Instructions to token rows, as in training."""
        return instruction_prompts(self.model.backbone, self.contract, self.tokenizer)


def instruction_prompts(
    backbone: AnyBackbone, contract: Contract, tokenizer: Tokenizer
) -> InstructionPrompts:
    """Returns what turns instructions into rows of tokens, in the form of the backbone's family."""
    shape = (3, contract.image_size, contract.image_size)
    num_views = len(contract.embodiment.camera_names)
    return InstructionPrompts(
        tokenizer,
        family_of(backbone.config),
        contract.prompt,
        max_text_tokens=contract.max_text_tokens,
        image_tokens=[backbone.num_image_tokens(shape)] * num_views,
    )


def save(
    directory: Path,
    model: VisionLanguageAction,
    contract: Contract,
    tokenizer: Tokenizer,
    *,
    weights_dtype: WeightsDtype = WeightsDtype.FP32,
    training_state: TrainingState | None = None,
) -> None:
    """Writes a checkpoint; a kill at any moment leaves either the old directory or the new one, never a mixture."""
    backbone = model.backbone.config
    save_folder(
        directory,
        {
            "kind": KIND,
            "model": {
                "family": family_of(backbone).value,
                "config": config_to_dict(backbone),
                "actions": config_to_dict(model.config),
            },
            **contract.to_dict(),
        },
        model.state_dict(),
        tokenizer=tokenizer,
        weights_dtype=weights_dtype,
        training_state=training_state,
    )


def load(directory: Path) -> LoadedCheckpoint:
    """Returns the checkpoint in `directory`, or, given a training run's folder, its newest one.

    The model is on the CPU, in fp32 and in evaluation mode.

    Raises:
        CheckpointError: nothing there, a file is missing, truncated or altered, or the checkpoint is of another family;
            names the file and the reason.
    """
    directory = find(directory)
    described = read_config(directory)
    is_version_1 = described["format_version"] == 1
    try:
        model = described["model"]
        model = version1.described(model) if is_version_1 else model
        backbone = backbone_config_from_dict(model["family"], model["config"])
        actions = config_from_dict(ActionConfig, model["actions"])
        keys = [*_CONTRACT_KEYS, *(["fast"] if "fast" in described else [])]
        contract = Contract.from_dict({name: described[name] for name in keys})
        _check_fast(actions, contract)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{directory / CONFIG} does not describe a model of this version: {error}; use the version that wrote it"
        ) from None
    folder = load_folder(directory, kind=KIND)
    if folder.tokenizer is None:
        raise CheckpointError(f"{directory} has no tokenizer; copy the checkpoint again")
    tensors = version1.weights(folder.tensors) if is_version_1 else folder.tensors
    return LoadedCheckpoint(
        directory=directory,
        model=fill(lambda: _model(backbone, actions), tensors),
        contract=contract,
        tokenizer=folder.tokenizer,
    )


def load_training_state(directory: Path) -> TrainingState:
    """Returns the state saved for resuming; raises CheckpointError when the checkpoint carries none or is damaged."""
    directory = find(directory)
    state = folders.load_training_state(directory)
    if folders.read_config(directory)["format_version"] == 1:
        state.tensors = version1.training_state(state.tensors)
    return state


def read_config(directory: Path) -> dict[str, Any]:
    """Returns a policy's config.json after checking that it is ours and that every file it lists is whole."""
    described = folders.read_config(directory, kind=KIND)
    lacking = sorted(set(_CONTRACT_KEYS) - described.keys())
    if lacking:
        raise CheckpointError(f"{directory / CONFIG} lacks {lacking}; copy it again")
    return described


_CONTRACT_KEYS = (
    "embodiment", "image_size", "rate_hz", "prompt", "max_text_tokens",
    "action_statistics", "state_statistics", "training",
)  # fmt: skip


def _check_fast(actions: ActionConfig, contract: Contract) -> None:
    """Raises ValueError unless the FAST tokenizer is that of a model that decodes with it, or neither is there."""
    fast = contract.fast
    if (fast is not None) != (actions.decoding is ActionDecoding.FAST):
        there = "no FAST tokenizer" if fast is None else "a FAST tokenizer"
        raise ValueError(f"decoding={actions.decoding.name} with {there}")
    if fast is not None:
        shape = (fast.chunk_length, fast.action_width)
        if (
            shape != (actions.chunk_length, actions.action_width)
            or fast.num_tokens > actions.num_fast_tokens
        ):
            raise ValueError(
                f"a FAST tokenizer of {fast.num_tokens} tokens for chunks of {shape[0]} x {shape[1]}, and a model with "
                f"{actions.num_fast_tokens} for {actions.chunk_length} x {actions.action_width}"
            )


def _model(backbone: AnyConfig, actions: ActionConfig) -> VisionLanguageAction:
    return VisionLanguageAction(build_backbone(backbone), actions)
