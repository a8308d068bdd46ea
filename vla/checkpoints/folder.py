"""A checkpoint on disk: a folder of safetensors and JSON, whole or absent, with nothing in it that could run.

model.safetensors           weights
config.json                 format, kind, model family and shape, versions, size and SHA-256 of the other files, and
                            whatever else the kind of checkpoint needs
tokenizer.json              text tokenizer, where there is one
training_state.safetensors  optimiser, weight average, random state (only while training)
training_state.json         step and other plain values (only while training)

Kinds: "policy" acts (`vla.checkpoints.native`), "vlm" answers in words, "picture_text" compares pictures and texts,
"tower" sees, "decoder" writes, "mask_codec" turns masks into codewords.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from vla.data.atomic import replacing_directory
from vla.errors import CheckpointError
from vla.tokenizers.text import load_text_tokenizer, save_text_tokenizer

FORMAT = "vla-checkpoint"
FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)  # version 1 knew policies alone
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
STATE_TENSORS, STATE_VALUES = "training_state.safetensors", "training_state.json"
_LARGEST_HASHED = (
    2 << 30
)  # bytes; above that only the size is checked, a hash would take many seconds
_LARGE_MODEL = 1 << 30  # bytes


class WeightsDtype(Enum):
    """How weights are stored; they are fp32 again once loaded."""

    FP32 = torch.float32
    FP16 = torch.float16  # half the size; errors below 1e-3 of a weight, for shipping
    BF16 = torch.bfloat16


@dataclass(kw_only=True)
class TrainingState:
    """What a run needs beyond the weights that act, to go on bit for bit: tensors by name, and plain JSON values."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a checkpoint's folder holds, read.

    Attributes:
        described: config.json, with "kind" and, in "model", "family" and "config".
        tensors: weights by name, as they are stored.
        tokenizer: None where the checkpoint has none.
    """

    directory: Path
    described: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer | None


def save_folder(
    directory: Path,
    described: dict[str, Any],
    tensors: dict[str, Tensor],
    *,
    tokenizer: Tokenizer | None = None,
    weights_dtype: WeightsDtype = WeightsDtype.FP32,
    training_state: TrainingState | None = None,
) -> None:
    """Writes a checkpoint; a kill at any moment leaves either the old directory or the new one, never a mixture.

    Args:
        directory: is replaced as a whole.
        described: plain values for config.json: "kind", "model" with "family" and "config", and what else belongs.
        tensors: weights, such as `model.state_dict()`.
        tokenizer: that the model's ids mean.
        weights_dtype: how floating-point weights are stored.
        training_state: to resume from.
    """
    with replacing_directory(directory) as temporary:
        _save_tensors(tensors, temporary / WEIGHTS, weights_dtype.value)
        if tokenizer is not None:
            save_text_tokenizer(tokenizer, temporary / TOKENIZER)
        if training_state is not None:
            _save_tensors(training_state.tensors, temporary / STATE_TENSORS, None)
            _write_json(temporary / STATE_VALUES, training_state.values)
        head = {"format": FORMAT, "format_version": FORMAT_VERSION}
        tail = {
            "weights_dtype": weights_dtype.name.lower(),
            "versions": _versions(),
            "files": {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())},
        }
        _write_json(temporary / CONFIG, {**head, **described, **tail})


def load_folder(directory: Path, *, kind: str) -> Folder:
    """Returns the checkpoint in `directory`, or, given a training run's folder, its newest one.

    Raises:
        CheckpointError: nothing there, of another kind, or a file is missing, truncated or altered; names the file.
    """
    directory = find(directory)
    described = read_config(directory, kind=kind)
    tokenizer = None
    if TOKENIZER in described["files"]:
        tokenizer = load_text_tokenizer(directory / TOKENIZER)
    return Folder(
        directory=directory,
        described=described,
        tensors=_load_tensors(directory / WEIGHTS),
        tokenizer=tokenizer,
    )


def load_training_state(directory: Path) -> TrainingState:
    """Returns the state saved for resuming; raises CheckpointError when the checkpoint carries none or is damaged."""
    directory = find(directory)
    if STATE_TENSORS not in read_config(directory)["files"]:
        raise CheckpointError(
            f"{directory} has no training state, it was saved to be used; fine-tune it with init_from="
        )
    values = json.loads((directory / STATE_VALUES).read_text(encoding="utf-8"))
    return TrainingState(tensors=_load_tensors(directory / STATE_TENSORS), values=values)


def fill[M: nn.Module](build: Callable[[], M], tensors: dict[str, Tensor]) -> M:
    """Returns the model that `build` makes with `tensors` as its weights: on the CPU, in fp32, in evaluation mode.

    torch's random state stays as it was, and a large model's weights are neither allocated twice nor drawn.

    Raises:
        CheckpointError: a tensor is absent, unexpected or of another shape.
    """
    # Under "meta" nothing is allocated or drawn, but torch then imports its compiler, which takes seconds.
    is_large = sum(tensor.nbytes for tensor in tensors.values()) > _LARGE_MODEL
    with torch.device("meta" if is_large else "cpu"), torch.random.fork_rng(devices=[]):
        model = build()
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ tensors.keys()):
        where = "lacks" if name in expected else "has an unexpected"
        raise CheckpointError(
            f"{WEIGHTS} {where} tensor {name!r}; weights and {CONFIG} do not belong together"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{WEIGHTS}: {name!r} has shape {tuple(tensor.shape)}, {CONFIG} says {tuple(expected[name].shape)}"
            )
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return model.eval()


def find(path: Path) -> Path:
    """Returns the checkpoint directory that `path` means: itself, or the `latest` one of a training run."""
    for candidate in (path, path / "latest", path / "checkpoints" / "latest"):
        if (candidate / CONFIG).is_file():
            return candidate.resolve()
    raise CheckpointError(
        f"no checkpoint in {path}: {CONFIG} is absent; give a directory written by `vla train`"
    )


def read_config(directory: Path, *, kind: str | None = None) -> dict[str, Any]:
    """Returns config.json after checking that it is ours, of `kind` (None: any), and every file it lists whole."""
    path = directory / CONFIG
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); copy the checkpoint again") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        theirs = (
            described.get("model_type", "unknown") if isinstance(described, dict) else "unknown"
        )
        raise CheckpointError(
            f"{path} is of another family (model_type {theirs!r}), expected format {FORMAT!r}"
        )
    version = described.get("format_version")
    if version not in READ_VERSIONS:
        raise CheckpointError(
            f"{path} has format version {version}, this program reads {' and '.join(map(str, READ_VERSIONS))}; "
            "use the version that wrote it"
        )
    if version == 1:
        described = {"kind": "policy", **described}
    if not {"kind", "model", "files"} <= described.keys():
        raise CheckpointError(
            f"{path} lacks {sorted({'kind', 'model', 'files'} - described.keys())}; copy it again"
        )
    if kind is not None and described["kind"] != kind:
        raise CheckpointError(
            f"{path} is a checkpoint of kind {described['kind']!r}, and one of kind {kind!r} is needed"
        )
    for name, fingerprint in described["files"].items():
        _check_file(directory / name, fingerprint)
    return described


def _save_tensors(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype | None) -> None:
    stored = {}
    for name, tensor in tensors.items():
        cast = tensor.detach().cpu()
        if dtype is not None and cast.is_floating_point():
            cast = cast.to(dtype)
        stored[name] = (
            cast.clone() if cast.untyped_storage().nbytes() != cast.nbytes else cast.contiguous()
        )
    save_file(stored, path, metadata={"format": "pt"})


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); copy the checkpoint again"
        ) from None


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _check_file(path: Path, fingerprint: dict[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; copy the checkpoint again")
    size = path.stat().st_size
    if size != fingerprint["bytes"]:
        what = "truncated" if size < fingerprint["bytes"] else "longer than written"
        raise CheckpointError(
            f"{path} is {what}: {size} of {fingerprint['bytes']} bytes; copy the checkpoint again"
        )
    if size <= _LARGEST_HASHED and _fingerprint(path)["sha256"] != fingerprint["sha256"]:
        raise CheckpointError(
            f"{path} was altered after it was written (SHA-256 differs); copy the checkpoint again"
        )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("vla", "torch", "safetensors", "tokenizers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # used from a checkout that is not installed
            found[name] = "unknown"
    return found
