"""Checkpoints as the program wrote them before backbones and heads were apart."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from vla.checkpoints import folder

NAMES = {  # beginnings, now and then
    "backbone.connector.": "projector.",
    "backbone.vision.": "vision.",
    "backbone.decoder.lm_head.": "action_head.lm_head.",
    "backbone.decoder.": "decoder.",
    "backbone.view_embedding": "view_embedding",
}
DECODER = (
    "vocab_size", "width", "depth", "num_heads", "num_kv_heads", "head_dim", "mlp_width", "activation", "rope_theta",
    "norm_eps",
)  # fmt: skip
COPIES = ("weights.", "average.", "optimizer.step.", "optimizer.exp_avg.", "optimizer.exp_avg_sq.")


def as_version_1(saved: Path) -> None:
    """Rewrites a Prismatic's checkpoint, and its training state where it has one, as format version 1."""
    path = saved / "config.json"
    described = json.loads(path.read_text())
    model, actions = described["model"], described["model"].pop("actions")
    decoder = model["config"]["decoder"]
    for name in decoder.keys() - set(DECODER):
        del decoder[name]
    names = ("chunk_length", "action_width", "state_width", "grounding", "text_vocab_size")
    model["config"] |= {
        "action_layout": actions["layout"],
        "action_decoding": actions["decoding"],
        **{name: actions[name] for name in names},
    }
    described["format_version"] = 1
    del described["kind"]
    for name in ("model.safetensors", "training_state.safetensors"):
        if name in described["files"]:
            tensors = load_file(saved / name)
            save_file({_old(key): tensor for key, tensor in tensors.items()}, saved / name)
            described["files"][name] = folder._fingerprint(saved / name)
    path.write_text(json.dumps(described))


def _old(name: str) -> str:
    copy = next((prefix for prefix in COPIES if name.startswith(prefix)), "")
    name = name.removeprefix(copy)
    prefix = next((prefix for prefix in NAMES if name.startswith(prefix)), "")
    return copy + NAMES.get(prefix, "") + name.removeprefix(prefix)
