"""Parts that were trained apart, put into a backbone: towers of a picture-text pair or of DINOv2, a decoder.

Names are strict: every weight of the backbone's part must be in the checkpoint, with the same shape. Left behind is
only what the checkpoint's kind has and a backbone need not have: an attention pool and a mask token. Two things may
differ in size: the position table, which is resampled to the backbone's pictures, and the token embedding, which may
have more rows in the backbone (action tokens); those stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vla.checkpoints.folder import Folder, load_folder, read_config
from vla.checkpoints.folder import find as find_folder
from vla.errors import CheckpointError, ConfigError, unknown_name
from vla.models.config_dict import config_from_dict
from vla.models.decoder import Decoder
from vla.models.vision.fused import FusedTowers
from vla.models.vision.position_tables import resize_position_table
from vla.models.vision.vit import ViT
from vla.models.vision.vit_config import ViTConfig

_LEFT_BEHIND = ("attention_pool.", "mask_token")
# What must agree for weights to mean the same; sizes show themselves in the tensors' shapes.
_MEANING = (
    "patch_size", "activation", "has_class_token", "num_registers", "positions", "is_column_first", "rope_theta",
    "rope_is_apart", "norm", "num_heads", "pixel_mean", "pixel_std", "output_block", "has_final_norm",
)  # fmt: skip
_TABLES = ("token_embedding.weight", "lm_head.weight")


def load_parts(
    model: nn.Module, *, vision: Sequence[Path] = (), decoder: Path | None = None
) -> list[str]:
    """Fills a backbone's tower and decoder from checkpoints, in place, and returns what was filled, for a log line.

    Args:
        model: a backbone, with `vision` (a ViT or FusedTowers) and `decoder`.
        vision: checkpoints of kind "picture_text" or "tower"; of several towers each goes to the one it fits.
        decoder: checkpoint of kind "decoder".

    Raises:
        CheckpointError: a part does not fit; names the tensor or the setting, and both values.
        ConfigError: the model has no such part.
    """
    filled = []
    for path in vision:
        folder, config, tensors = _read_tower(path)
        towers = _towers(model)
        fitting = [
            name
            for name, tower in towers.items()
            if not _difference(config, tower.config, tensors, tower)
        ]
        if not fitting:
            reasons = "; ".join(
                f"{name}: {_difference(config, tower.config, tensors, tower)}"
                for name, tower in towers.items()
            )
            raise CheckpointError(
                f"{folder.directory} fits no tower of this model ({reasons}); train one of the model's shape with "
                "vla pretrain, or build the model with the checkpoint's shape"
            )
        for name in fitting:
            _fill_tower(towers[name], tensors)
            filled.append(f"{name} from {folder.directory}")
    if decoder is not None:
        filled.append(_fill_decoder(model, decoder))
    return filled


def _towers(model: nn.Module) -> dict[str, ViT]:
    vision = getattr(model, "vision", None)
    if isinstance(vision, ViT):
        return {"vision": vision}
    if isinstance(vision, FusedTowers):
        return {
            f"vision.towers.{index}": tower
            for index, tower in enumerate(vision.towers)
            if isinstance(tower, ViT)
        }
    raise ConfigError(
        f"{type(model).__name__} has no vision tower to fill; leave vision= out, or choose a backbone with a tower"
    )


def _read_tower(path: Path) -> tuple[Folder, ViTConfig, dict[str, Tensor]]:
    directory = find_folder(path)
    kind = read_config(directory)["kind"]
    match kind:
        case "picture_text":
            folder = load_folder(directory, kind=kind)
            values = folder.described["model"]["config"]["vision"]
            prefix = "vision."
        case "tower":
            folder = load_folder(directory, kind=kind)
            values = folder.described["model"]["config"]["tower"]
            prefix = ""
        case _:
            expected = unknown_name("kind", kind, ["picture_text", "tower"])
            raise CheckpointError(f"{directory} holds no vision tower: {expected}")
    tensors = {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in folder.tensors.items()
        if name.startswith(prefix)
    }
    return folder, config_from_dict(ViTConfig, values), tensors


def _difference(
    theirs: ViTConfig, ours: ViTConfig, tensors: dict[str, Tensor], tower: ViT
) -> str | None:
    """What keeps the weights from fitting; None if nothing does."""
    for name in _MEANING:
        if getattr(theirs, name) != getattr(ours, name):
            return f"{name} is {getattr(theirs, name)} in the checkpoint, {getattr(ours, name)} in the model"
    expected = tower.state_dict()
    for name in tensors.keys() - expected.keys():
        if not name.startswith(_LEFT_BEHIND):
            return f"the checkpoint's {name!r} has no place in the model"
    for name, tensor in expected.items():
        if name not in tensors:
            return f"the checkpoint lacks {name!r}"
        stretches = name == "position_table" and not ours.has_class_position
        given, wanted = tensors[name].shape, tensor.shape
        if given != wanted and not (stretches and given[1:] == wanted[1:]):
            return (
                f"{name!r} has shape {tuple(given)} in the checkpoint, {tuple(wanted)} in the model"
            )
    return None


@torch.no_grad()
def _fill_tower(tower: ViT, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tower.state_dict().items():
        given = tensors[name]
        if given.shape != tensor.shape:
            given = resize_position_table(given, tower.grid, resampling=tower.config.resampling)
        tensor.copy_(given)


@torch.no_grad()
def _fill_decoder(model: nn.Module, path: Path) -> str:
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, Decoder):
        raise ConfigError(f"{type(model).__name__} has no decoder to fill; leave decoder= out")
    folder = load_folder(path, kind="decoder")
    _check_decoder(folder, decoder)
    expected = decoder.state_dict()
    for name, tensor in expected.items():
        given = folder.tensors[name].float()
        if name in _TABLES:
            tensor[: len(given)] = given
        else:
            tensor.copy_(given)
    return f"decoder from {folder.directory}"


def _check_decoder(folder: Folder, decoder: Decoder) -> None:
    where, tensors, expected = folder.directory, folder.tensors, decoder.state_dict()
    theirs = folder.described["model"]["config"]
    ours = decoder.config
    for name in ("activation", "norm", "rope_theta", "rope_sections", "window", "scales_embedding"):
        mine = getattr(ours, name)
        mine = getattr(mine, "name", mine)
        if theirs.get(name) != mine:
            raise CheckpointError(
                f"{where} does not fit this model's decoder: {name} is {theirs.get(name)} in the checkpoint, {mine} in "
                "the model; train the decoder of this family with vla pretrain text text.family=..."
            )
    for name in sorted(expected.keys() ^ tensors.keys()):
        whose = "the model" if name in expected else "the checkpoint"
        raise CheckpointError(
            f"{where} does not fit this model's decoder: only {whose} has {name!r}; "
            "train the decoder of this family with vla pretrain text text.family=..."
        )
    for name, tensor in expected.items():
        given, wanted = tensors[name].shape, tensor.shape
        grows = name in _TABLES and given[1:] == wanted[1:] and given[0] <= wanted[0]
        if given != wanted and not grows:
            raise CheckpointError(
                f"{where}: {name!r} has shape {tuple(given)}, the model's decoder {tuple(wanted)}; "
                "build both with the same width, depth and vocabulary"
            )
