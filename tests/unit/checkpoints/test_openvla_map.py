"""config.json of OpenVLA in both directions; its weights are compared in tests/parity/test_openvla.py."""

import dataclasses

import pytest
import torch

from vla.checkpoints.maps import openvla
from vla.errors import CheckpointError
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import openvla_7b, tiny
from vla.tokenizers.action_bins import ActionLayout

ACTIONS = ActionConfig(
    text_vocab_size=32000,
    layout=ActionLayout.LAST_256,
    decoding=ActionDecoding.AUTOREGRESSIVE,
    chunk_length=1,
    state_width=0,
    grounding=False,
)


def test_the_released_config_gives_the_released_shape():
    released = {  # openvla/openvla-7b, as far as it matters; its text_config leaves defaults out
        "model_type": "openvla",
        "arch_specifier": "no-align+fused-gelu-mlp",
        "use_fused_vision_backbone": True,
        "timm_model_ids": [
            "vit_large_patch14_reg4_dinov2.lvd142m",
            "vit_so400m_patch14_siglip_224",
        ],
        "image_sizes": [224, 224],
        "pad_to_multiple_of": 64,
        "n_action_bins": 256,
        "text_config": {"model_type": "llama", "pad_token_id": 32000, "vocab_size": 32064},
    }
    config = openvla.model_config(released)
    config.decoder.max_tokens = openvla_7b().decoder.max_tokens
    assert config == openvla_7b()
    assert openvla.action_config(released) == ACTIONS
    with torch.device("meta"):
        model = Prismatic(config)
    assert sum(p.numel() for p in model.parameters()) == 7_541_237_184
    theirs = openvla.key_map(config).export(model.state_dict())
    assert sum(tensor.numel() for tensor in theirs.values()) == 7_541_237_184


def test_the_exported_config_says_what_the_released_one_says():
    stats = {"toy": {"action": {"q01": [0.0], "q99": [1.0], "mask": [True]}}}
    values = openvla.hub_config(openvla_7b(), ACTIONS, stats)
    assert openvla.model_config(values) == openvla_7b()
    assert values["norm_stats"] == stats
    with pytest.raises(CheckpointError, match="not of OpenVLA's form"):
        openvla.hub_config(openvla_7b(), dataclasses.replace(ACTIONS, chunk_length=2))
    with pytest.raises(CheckpointError, match="not of OpenVLA's form"):
        openvla.hub_config(tiny(300), ACTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llava"}, "model_type 'llava', expected openvla or prismatic"),
        (
            {"timm_model_ids": ["vit_tiny"]},
            r"timm_model_ids = \['vit_tiny'\], which is not supported",
        ),
        ({"arch_specifier": "linear"}, "arch_specifier = 'linear', which is not supported"),
        ({"image_sizes": [224, 336]}, r"image_sizes \[224, 336\]; only squares"),
        ({"text_config": {"model_type": "mistral"}}, "model_type 'mistral', expected llama"),
    ],
)
def test_a_config_of_another_model_is_refused_by_name(change, message):
    with pytest.raises(CheckpointError, match=message):
        openvla.model_config({"model_type": "openvla"} | change)
