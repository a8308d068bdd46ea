"""Policies of format version 1: a Prismatic that held its own heads, as it is described and named today.

Weights keep their values; only names change. A model that decoded token by token had its head over the vocabulary in
the action head; now the decoder has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vla.errors import CheckpointError

WEIGHTS = {  # beginnings of names, then and now
    "vision.": "backbone.vision.",
    "projector.": "backbone.connector.",
    "view_embedding": "backbone.view_embedding",
    "decoder.": "backbone.decoder.",
    "action_head.lm_head.": "backbone.decoder.lm_head.",
    "action_head.": "action_head.",
    "proprio.": "proprio.",
    "grounding_head.": "grounding_head.",
}
BACKBONE = ("image_size", "num_views", "towers", "projector_width", "decoder", "attention")
ACTIONS = {  # settings, then and now
    "text_vocab_size": "text_vocab_size",
    "action_layout": "layout",
    "action_decoding": "decoding",
    "chunk_length": "chunk_length",
    "action_width": "action_width",
    "state_width": "state_width",
    "grounding": "grounding",
}
# A training state holds each weight several times.
_STATE = (
    "weights.",
    "average.",
    "optimizer.step.",
    "optimizer.exp_avg.",
    "optimizer.exp_avg_sq.",
)


def described(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns "model" of today's config.json for that of version 1.

    Raises:
        ValueError: a setting that version 1 did not have.
    """
    config = dict(model["config"])
    unknown = sorted(config.keys() - {*BACKBONE, *ACTIONS})
    if unknown:
        raise ValueError(f"version 1 had no settings {unknown}")
    backbone = {name: config[name] for name in BACKBONE if name in config}
    actions = {now: config[then] for then, now in ACTIONS.items() if then in config}
    is_token_by_token = actions.get("decoding") == "AUTOREGRESSIVE"
    backbone["decoder"] = {
        **backbone["decoder"],
        "head": "OWN" if is_token_by_token else "NONE",
    }
    actions["sees_later_slots"] = backbone.get("attention") != "CAUSAL"
    return {"family": model["family"], "config": backbone, "actions": actions}


def weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under today's names; raises CheckpointError for a name that version 1 did not have."""
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def training_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a training state under today's names."""
    renamed = {}
    for name, tensor in tensors.items():
        kind = next((prefix for prefix in _STATE if name.startswith(prefix)), None)
        renamed[name if kind is None else kind + _renamed(name.removeprefix(kind))] = tensor
    return renamed


def _renamed(name: str) -> str:
    for then, now in WEIGHTS.items():
        if name.startswith(then):
            return now + name.removeprefix(then)
    raise CheckpointError(
        f"unexpected tensor {name!r} in a checkpoint of version 1; its weights and config do not belong together"
    )
