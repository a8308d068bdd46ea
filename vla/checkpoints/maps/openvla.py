"""Where the weights of an OpenVLA checkpoint in Hugging Face layout go in our Prismatic.

Left: our name, with {i} for a block index. Right: the checkpoint's names that become it, several where we hold
them as one matrix. Source: openvla/openvla c8f03f4, prismatic/extern/hf/modeling_prismatic.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vla.errors import CheckpointError
from vla.models.backbones.prismatic import Prismatic

# Ours -> theirs, the same for every block {i} of a tower.
_TOWER_BLOCK = {
    "attention_norm.weight": ["norm1.weight"],
    "attention_norm.bias": ["norm1.bias"],
    "attention.qkv.weight": ["attn.qkv.weight"],
    "attention.qkv.bias": ["attn.qkv.bias"],
    "attention.out.weight": ["attn.proj.weight"],
    "attention.out.bias": ["attn.proj.bias"],
    "mlp_norm.weight": ["norm2.weight"],
    "mlp_norm.bias": ["norm2.bias"],
    "mlp.up.weight": ["mlp.fc1.weight"],
    "mlp.up.bias": ["mlp.fc1.bias"],
    "mlp.down.weight": ["mlp.fc2.weight"],
    "mlp.down.bias": ["mlp.fc2.bias"],
}
_LAYER_SCALE = {  # DINOv2 alone; transformers renames timm's gamma
    "attention_scale": ["ls1.scale_factor"],
    "mlp_scale": ["ls2.scale_factor"],
}
_TOWER = {
    "patches.projection.weight": ["patch_embed.proj.weight"],
    "patches.projection.bias": ["patch_embed.proj.bias"],
    "position_table": ["pos_embed"],
}
_EXTRA_TOKENS = {"extra_tokens": ["cls_token", "reg_token"]}  # DINOv2 alone
_DECODER_LAYER = {
    "attention_norm.weight": ["input_layernorm.weight"],
    "attention.qkv.weight": [
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
    ],
    "attention.out.weight": ["self_attn.o_proj.weight"],
    "mlp_norm.weight": ["post_attention_layernorm.weight"],
    "mlp.gate_up.weight": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "mlp.down.weight": ["mlp.down_proj.weight"],
}
_WHOLE = {
    "projector.fc1.weight": ["projector.fc1.weight"],
    "projector.fc1.bias": ["projector.fc1.bias"],
    "projector.fc2.weight": ["projector.fc2.weight"],
    "projector.fc2.bias": ["projector.fc2.bias"],
    "projector.fc3.weight": ["projector.fc3.weight"],
    "projector.fc3.bias": ["projector.fc3.bias"],
    "decoder.token_embedding.weight": ["language_model.model.embed_tokens.weight"],
    "decoder.final_norm.weight": ["language_model.model.norm.weight"],
    "action_head.lm_head.weight": ["language_model.lm_head.weight"],
}
_TOWER_PREFIXES = {
    "vision.towers.0.": "vision_backbone.featurizer.",
    "vision.towers.1.": "vision_backbone.fused_featurizer.",
}
# In the checkpoint and read by nobody: the last block of each tower, the final norms, SigLIP's pooling head.
UNUSED_PARTS = ("norm.", "attn_pool.", "blocks.")


def key_map(model: Prismatic) -> dict[str, list[str]]:
    """Returns, for every weight of `model`, the checkpoint's names that become it."""
    names = dict(_WHOLE)
    for (ours, theirs), config in zip(_TOWER_PREFIXES.items(), model.config.towers, strict=True):
        tower = _TOWER | (_EXTRA_TOKENS if config.has_class_token else {})
        block = _TOWER_BLOCK | (_LAYER_SCALE if config.layer_scale is not None else {})
        names |= _prefixed(tower, ours, theirs)
        for i in range(config.num_blocks):
            names |= _prefixed(block, f"{ours}blocks.{i}.", f"{theirs}blocks.{i}.")
    for i in range(model.config.decoder.depth):
        names |= _prefixed(
            _DECODER_LAYER, f"decoder.layers.{i}.", f"language_model.model.layers.{i}."
        )
    return names


def convert(weights: Mapping[str, Tensor], model: Prismatic) -> dict[str, Tensor]:
    """Returns the state dict of `model` made from a checkpoint's weights.

    Raises CheckpointError naming the weight that is missing, of another shape, or not expected.
    """
    names = key_map(model)
    expected = model.state_dict()
    converted = {}
    for ours, theirs in names.items():
        missing = [name for name in theirs if name not in weights]
        if missing:
            raise CheckpointError(f"the checkpoint has no {missing[0]}; it is not OpenVLA's")
        tensor = _converted(ours, [weights[name] for name in theirs])
        if tensor.shape != expected[ours].shape:
            raise CheckpointError(
                f"{' + '.join(theirs)} gives shape {tuple(tensor.shape)}; the model expects "
                f"{tuple(expected[ours].shape)} for {ours}; compare the two configs"
            )
        converted[ours] = tensor
    used = {name for theirs in names.values() for name in theirs}
    unknown = [name for name in weights if name not in used and not _is_unused(name)]
    if unknown:
        raise CheckpointError(f"the checkpoint also holds {unknown[0]}, which the model has not")
    return converted


def _converted(name: str, parts: list[Tensor]) -> Tensor:
    if name.endswith("patches.projection.weight"):  # strided convolution to linear, channels last
        return parts[0].permute(0, 2, 3, 1).flatten(1)
    if name.endswith(("position_table", "extra_tokens")):
        parts = [part[0] for part in parts]
    return torch.cat(parts, dim=0)


def _is_unused(name: str) -> bool:
    return any(
        name.startswith(theirs + part)
        for theirs in _TOWER_PREFIXES.values()
        for part in UNUSED_PARTS
    )


def _prefixed(names: Mapping[str, list[str]], ours: str, theirs: str) -> dict[str, list[str]]:
    return {ours + name: [theirs + other for other in others] for name, others in names.items()}
