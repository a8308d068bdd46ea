"""OpenVLA and Prismatic: config.json and weights, in the hub's layout and in the native one.

The canonical names are the hub's; those of a native file (`vla.checkpoints.prismatic_pt`) are other spellings of them.
Source: openvla/openvla c8f03f4, prismatic/extern/hf/{configuration,modeling}_prismatic.py and
vla-scripts/extern/convert_openvla_weights_to_hf.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.checkpoints.keymap import KeyMap, Table, affine, prefixed
from vla.checkpoints.maps import llama, settings
from vla.checkpoints.maps.decoder import UNREAD, decoder_table
from vla.checkpoints.maps.towers import timm_tower
from vla.errors import CheckpointError
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.models.vision.vit_config import ViTConfig
from vla.nn.masks import PrefixAttention
from vla.tokenizers.action_bins import ActionLayout

_TOWERS = ("vision_backbone.featurizer.", "vision_backbone.fused_featurizer.")
_DECODER = "language_model.model."
_NATIVE_PREFIXES = {
    "vision_backbone.dino_featurizer.": _TOWERS[0],
    "vision_backbone.siglip_featurizer.": _TOWERS[1],
    "projector.projector.0.": "projector.fc1.",
    "projector.projector.2.": "projector.fc2.",
    "projector.projector.4.": "projector.fc3.",
    "llm_backbone.llm.model.": _DECODER,
    "llm_backbone.llm.lm_head.": "language_model.lm_head.",
}
_TOWER_IDS = {
    "vit_large_patch14_reg4_dinov2.lvd142m": presets.dinov2_large_reg4,
    "vit_so400m_patch14_siglip_224": presets.siglip_so400m,
}


def key_map(config: PrismaticConfig) -> KeyMap:
    """Returns the map of an OpenVLA's backbone, which has all its weights.

    Towers that are not `is_whole` leave unread what they do not hold.
    """
    table: Table = {
        **affine("connector.fc1", "projector.fc1"),
        **affine("connector.fc2", "projector.fc2"),
        **affine("connector.fc3", "projector.fc3"),
        **decoder_table(config.decoder, "decoder.", _DECODER),
        "decoder.lm_head.weight": "language_model.lm_head.weight",
    }
    unread = [*UNREAD]
    for i, (tower, theirs) in enumerate(zip(config.towers, _TOWERS, strict=False)):
        table |= prefixed(f"vision.towers.{i}.", theirs, timm_tower(tower, scale="scale_factor"))
        unread += _unread(tower, theirs)
    return KeyMap(
        family="OpenVLA",
        table=table,
        prefixes=_NATIVE_PREFIXES,
        endings={".ls1.gamma": ".ls1.scale_factor", ".ls2.gamma": ".ls2.scale_factor"},
        unread=unread,
    )


def model_config(values: Mapping[str, Any]) -> PrismaticConfig:
    """Returns the backbone that config.json describes, its towers whole.

    Raises:
        CheckpointError: another family, or towers, projector or sizes that are not supported, by name.
    """
    settings.check_model_type(values, "openvla", "prismatic")
    settings.refuse(
        values,
        {
            "arch_specifier": ["no-align+fused-gelu-mlp"],
            "use_fused_vision_backbone": [True],
            "timm_model_ids": [list(_TOWER_IDS)],
            "n_action_bins": [256],
        },
    )
    text = {"vocab_size": 32064, **values.get("text_config", {})}
    decoder = llama.decoder_config(text)
    decoder.head = Head.OWN
    towers = [_TOWER_IDS[name](is_whole=True) for name in _TOWER_IDS]
    return PrismaticConfig(
        image_size=_side(values.get("image_sizes", [224, 224])),
        num_views=1,
        towers=towers,
        projector_width=4 * sum(tower.width for tower in towers),
        decoder=decoder,
        attention=PrefixAttention.CAUSAL,
    )


def action_config(values: Mapping[str, Any]) -> ActionConfig:
    """Returns how the model that config.json describes acts: seven tokens, the last 256 of the text, one action."""
    text = {"vocab_size": 32064, **values.get("text_config", {})}
    return ActionConfig(
        text_vocab_size=text["vocab_size"] - values.get("pad_to_multiple_of", 64),
        layout=ActionLayout.LAST_256,
        decoding=ActionDecoding.AUTOREGRESSIVE,
        chunk_length=1,
        state_width=0,
        grounding=False,
    )


def hub_config(
    config: PrismaticConfig,
    actions: ActionConfig,
    norm_stats: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the config.json to lie beside exported weights, which OpenVLA's own code reads.

    Args:
        config: of the exported backbone.
        actions: how it acts.
        norm_stats: for each data set `{"action": {q01, q99, mask, ...}, ...}`, such as ActionStatistics.to_dict gives.

    Raises:
        CheckpointError: the model is not of OpenVLA's form, so OpenVLA's code could not run it.
    """
    described = {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        "arch_specifier": "no-align+fused-gelu-mlp",
        "use_fused_vision_backbone": True,
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "timm_model_ids": list(_TOWER_IDS),
        "timm_override_act_layers": [None] * len(_TOWER_IDS),
        "image_sizes": [config.image_size] * 2,
        "image_resize_strategy": "resize-naive",
        "llm_backbone_id": "llama2-7b-pure",
        "hf_llm_id": "meta-llama/Llama-2-7b-hf",
        "llm_max_length": config.decoder.max_tokens,
        "pad_token_id": actions.text_vocab_size,
        "pad_to_multiple_of": config.decoder.vocab_size - actions.text_vocab_size,
        "text_config": _text_config(config.decoder),
        "n_action_bins": 256,
        "norm_stats": dict(norm_stats or {}),
    }
    if model_config(described) != config or action_config(described) != actions:
        raise CheckpointError(
            "this model is not of OpenVLA's form (its two towers, whole, one view, tokens one after another, no "
            "proprioception), and its code could not run it; save it in our own format"
        )
    return described


def _text_config(decoder: DecoderConfig) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.width,
        "intermediate_size": decoder.mlp_width,
        "num_hidden_layers": decoder.depth,
        "num_attention_heads": decoder.num_heads,
        "num_key_value_heads": decoder.num_kv_heads,
        "rope_theta": decoder.rope_theta,
        "rms_norm_eps": decoder.norm_eps,
        "max_position_embeddings": decoder.max_tokens,
        "tie_word_embeddings": False,
    }


def _side(sizes: list[int]) -> int:
    if len(set(sizes)) != 1:
        raise CheckpointError(f"config.json has image_sizes {sizes}; only squares are supported")
    return sizes[0]


def _unread(tower: ViTConfig, theirs: str) -> list[str]:
    """What the checkpoint has of a tower beyond what ours holds."""
    if tower.is_whole:
        return []
    later = [f"{theirs}blocks.{i}.*" for i in range(tower.num_blocks, tower.depth)]
    return [*later, f"{theirs}norm.*", f"{theirs}attn_pool.*"]
