"""A model directory as the Hugging Face hub has it: config.json, and safetensors in one file or in shards.

model.safetensors                                    all weights, or
model-00001-of-00003.safetensors, ...                 some of them each, and
model.safetensors.index.json                          which file has which weight

Weights are read one at a time, when they are asked for. Nothing here opens a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vla.checkpoints.keymap import KeyMap
from vla.data.atomic import replacing_directory
from vla.errors import CheckpointError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000


class HubWeights(Mapping[str, Tensor]):
    """The weights in a directory by name; asking for one reads it, and nothing else."""

    def __init__(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """Opens every file and checks that it is whole.

        Args:
            directory: has `model.safetensors`, or its shards and their index.
            dtype: floating-point weights are handed out in it; None keeps that of the file.

        Raises:
            CheckpointError: a file is missing, truncated, or lacks a weight that the index promises; names the file.
        """
        self._dtype = dtype
        self._files: dict[str, Any] = {}  # by the name of the weight
        for path, promised in _files(directory).items():
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{path} is not a whole safetensors file ({error}); copy it again"
                ) from None
            names = set(opened.keys())
            lacking = sorted(set(promised or ()) - names)
            if lacking:
                raise CheckpointError(
                    f"{path} lacks {lacking[0]}, which {INDEX} promises; copy both again"
                )
            self._files |= dict.fromkeys(promised or sorted(names), opened)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._files[name].get_tensor(name)
        is_cast = self._dtype is not None and tensor.is_floating_point()
        return tensor.to(self._dtype) if is_cast else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_config(directory: Path) -> dict[str, Any]:
    """Returns config.json; raises CheckpointError when there is none or it is no JSON object."""
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); copy the checkpoint again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no settings; copy the checkpoint again")
    return values


def load_weights(
    model: nn.Module, directory: Path, key_map: KeyMap, dtype: torch.dtype | None = None
) -> None:
    """Fills `model`, which may be on the meta device, with the weights in `directory`.

    Parameters take the dtype of the file, or `dtype`; never is more held than the model and the parts of one weight.
    """
    weights = HubWeights(directory, dtype)
    model.load_state_dict(key_map.convert(weights, model), assign=True)


def save_weights(
    directory: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes weights under their own names, and config.json; the directory is whole or absent at any moment.

    Args:
        directory: made, or replaced.
        weights: what `KeyMap.export` returns.
        config: their config, with `model_type`.
        max_shard_bytes: a file ends before the weight that would make it larger.
    """
    shards = _sharded(weights, max_shard_bytes)
    with replacing_directory(directory) as temporary:
        where = {}
        for i, names in enumerate(shards):
            file = WEIGHTS
            if len(shards) > 1:
                file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
            shard = {name: _alone(weights[name]) for name in names}
            save_file(shard, temporary / file, metadata={"format": "pt"})
            where |= dict.fromkeys(names, file)
        if len(shards) > 1:
            total = sum(tensor.nbytes for tensor in weights.values())
            index = {"metadata": {"total_size": total}, "weight_map": where}
            _write_json(temporary / INDEX, index)
        _write_json(temporary / CONFIG, config)


def _files(directory: Path) -> dict[Path, list[str] | None]:
    """The files with weights; for each, what the index says is in it, where there is an index."""
    whole, index = directory / WEIGHTS, directory / INDEX
    if not index.is_file():
        if whole.is_file():
            return {whole: None}
        raise CheckpointError(
            f"{directory} has neither {WEIGHTS} nor {INDEX}; "
            "give a directory in the hub's layout (pickled weights, .bin, are not read)"
        )
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        by_file: dict[Path, list[str]] = {}
        for name, file in weight_map.items():
            by_file.setdefault(directory / file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read {index} ({error}); copy it again") from None
    missing = sorted(path.name for path in by_file if not path.is_file())
    if missing:
        raise CheckpointError(
            f"{directory} lacks {missing[0]}, {len(missing)} of {len(by_file)} shards are missing; copy them too"
        )
    return dict(by_file.items())


def _sharded(weights: Mapping[str, Tensor], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in weights.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    return shards


def _alone(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, contiguous, and with a memory of its own, as the file format wants it."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
