"""Reading config.json of a transformers model: both spellings of each setting, and a refusal for what is not supported.

Configs saved by transformers 5 have `rope_parameters`, older ones `rope_theta` and `rope_scaling`; many on the hub
leave out what equals the default of their class, so every family's reader carries those defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vla.errors import CheckpointError
from vla.models.decoder_config import Head
from vla.nn.mlp import Activation

_ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "quick_gelu": Activation.QUICK_GELU,
    "silu": Activation.SILU,
}


def check_model_type(values: Mapping[str, Any], *expected: str) -> None:
    """Raises CheckpointError for a config of another family; one without `model_type` passes."""
    found = values.get("model_type", expected[0])
    if found not in expected:
        raise CheckpointError(
            f"config.json is of model_type {found!r}, expected {' or '.join(expected)}; "
            "read it with the family that it is of"
        )


def required(values: Mapping[str, Any], name: str) -> Any:
    """Returns a setting that has no default; raises CheckpointError where it is absent."""
    if values.get(name) is None:
        raise CheckpointError(f"config.json has no {name}; copy it again from the checkpoint")
    return values[name]


def refuse(values: Mapping[str, Any], supported: Mapping[str, Sequence[Any]]) -> None:
    """Raises CheckpointError for a setting that changes the model in a way that is not written here.

    Args:
        values: config.json, or a part of it.
        supported: for some settings, the values under which our model is the same; absent counts as the first.
    """
    for name, accepted in supported.items():
        found = values.get(name, accepted[0])
        if found not in accepted:
            raise CheckpointError(
                f"config.json has {name} = {found!r}, which is not supported (only {list(accepted)}); "
                "choose a checkpoint without it"
            )


def activation(name: str) -> Activation:
    """Returns our member for transformers' name of an activation."""
    if name not in _ACTIVATIONS:
        raise CheckpointError(
            f"config.json asks for activation {name!r}, which is not supported (only {sorted(_ACTIVATIONS)})"
        )
    return _ACTIVATIONS[name]


def head(values: Mapping[str, Any], *, is_tied: bool) -> Head:
    """Returns TIED or OWN; `is_tied` is the default of the family."""
    return Head.TIED if values.get("tie_word_embeddings", is_tied) else Head.OWN


def text_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the language model's settings: config.json itself, or its `text_config`.

    A model of words and pictures says on top whether the head is tied.
    """
    if "text_config" not in values:
        return dict(values)
    settings = dict(values["text_config"])
    if "tie_word_embeddings" in values:
        settings["tie_word_embeddings"] = values["tie_word_embeddings"]
    return settings


def rope(values: Mapping[str, Any], kind: str = "full_attention") -> dict[str, Any]:
    """Returns the rotary settings of one kind of layer in the newer spelling, `rope_type` among them."""
    found = dict(values.get("rope_parameters") or {})
    if kind in found or "full_attention" in found:  # one dict for each kind of layer
        found = dict(found.get(kind) or {})
    elif not found:
        found = dict(values.get("rope_scaling") or {})
    found["rope_type"] = found.get("rope_type", found.pop("type", "default"))
    if found["rope_type"] == "mrope":  # the sections say so
        found["rope_type"] = "default"
    if values.get("rope_theta") is not None:
        found.setdefault("rope_theta", values["rope_theta"])
    if values.get("partial_rotary_factor") is not None:
        found.setdefault("partial_rotary_factor", values["partial_rotary_factor"])
    return found


def plain_theta(values: Mapping[str, Any], default: float, kind: str = "full_attention") -> float:
    """Returns theta of layers that turn all pairs at their plain speed; raises CheckpointError for any others."""
    found = rope(values, kind)
    refuse(found, {"rope_type": ["default"], "partial_rotary_factor": [1.0, None]})
    return float(found.get("rope_theta", default))


def full_layers(values: Mapping[str, Any], depth: int, pattern: int) -> list[int]:
    """Returns the layers without window: as `layer_types` says, or else every `pattern`-th."""
    types = values.get("layer_types")
    if types is None:
        older = values.get("sliding_window_pattern") or values.get("_sliding_window_pattern")
        pattern = older or pattern
        return list(range(pattern - 1, depth, pattern))
    unknown = sorted(set(types) - {"full_attention", "sliding_attention"})
    if unknown or len(types) != depth:
        raise CheckpointError(
            f"config.json has {len(types)} layer_types of kinds {sorted(set(types))} for {depth} layers; "
            "expected one full_attention or sliding_attention each"
        )
    return [i for i, kind in enumerate(types) if kind == "full_attention"]
