import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vla.models import decoder_presets
from vla.models.backbones import gemma4_config, paligemma_config, qwen2_vl_config
from vla.models.cost import (
    decoder_flops,
    head_flops,
    kv_bytes,
    linear_flops,
    tower_flops,
)
from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.models.vision.vit import ViT
from vla.models.vision.vit_config import ViTConfig
from vla.nn.positions import grid_positions

WOVEN = gemma4_config.tiny_gemma4(300).decoder
DECODERS = {
    "llama": dataclasses.replace(decoder_presets.tiny(300), head=Head.OWN),
    "gemma": paligemma_config.tiny_paligemma(300).decoder,
    "gemma2": dataclasses.replace(
        paligemma_config.tiny_paligemma(300).decoder,
        has_post_norms=True, attention_softcap=50.0, final_softcap=30.0, window=4, full_layers=[1, 3],
    ),
    "qwen2_vl": qwen2_vl_config.tiny(298).decoder,
    "gemma4": WOVEN,
    "gemma4_e2b": dataclasses.replace(
        WOVEN, depth=6, full_layers=[1, 3, 5], num_shared_layers=2, shared_mlp_factor=2, full_head_dim=64,
        per_layer_width=16, per_layer_vocab_size=300,
    ),
    "gemma4_31b": dataclasses.replace(WOVEN, full_num_kv_heads=1, full_values_are_keys=True, full_head_dim=64),
}  # fmt: skip
TOWERS = {
    "dinov2": ViTConfig(width=32, depth=4, num_heads=2, mlp_width=64, patch_size=8),
    "siglip_with_a_stem": presets.tiny_siglip(32, 2, 16),
    "qwen2_vl": dataclasses.replace(
        presets.qwen2_vl_tower(), patch_size=8, width=32, depth=2, num_heads=2, mlp_width=48
    ),
    "gemma4": dataclasses.replace(
        presets.gemma4_tower_small(), patch_size=8, width=32, depth=2, num_heads=2, mlp_width=48
    ),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_costs_what_the_counter_counts(name):
    """With gradients on, attention is two plain products, which the counter knows in every grouping."""
    decoder = Decoder(DECODERS[name])
    ids = torch.randint(0, 300, (1, 9))
    may_attend = torch.ones(1, 1, 9, 9, dtype=torch.bool).tril()
    with FlopCounterMode(display=False) as counter:
        hidden = decoder(
            decoder.embed(ids),
            may_attend=may_attend,
            may_attend_near=may_attend,
            positions=torch.arange(9)[None],
            token_ids=ids,
        )
        decoder.logits(hidden[:, -1:])
    expected = decoder_flops(decoder, num_tokens=9, num_keys=9) + head_flops(decoder)
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoded_token_costs_what_the_counter_counts(name):
    decoder = Decoder(DECODERS[name])
    cache = decoder.make_cache(1, 9, torch.float32, torch.device("cpu"))

    def read(ids: torch.Tensor, first: int) -> None:
        end = first + ids.shape[1]
        mask = torch.ones(1, 1, ids.shape[1], end, dtype=torch.bool).tril(first)
        decoder(
            decoder.embed(ids).detach(), may_attend=mask, may_attend_near=mask, cache=cache, token_ids=ids,
            positions=torch.arange(first, end)[None],
        )  # fmt: skip

    ids = torch.randint(0, 300, (1, 9))
    with torch.no_grad():
        read(ids[:, :8], 0)
    for (
        parameter
    ) in decoder.parameters():  # a cache is written in place, which no gradient may pass
        parameter.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        read(ids[:, 8:], 8)
    assert counter.get_total_flops() == decoder_flops(decoder, num_tokens=1, num_keys=9)


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_costs_what_the_counter_counts(name):
    config = TOWERS[name]
    tower = ViT(config, image_size=32)
    num_patches = (32 // config.patch_size) ** 2
    with FlopCounterMode(display=False) as counter:
        if name in ("qwen2_vl", "gemma4"):
            side = 32 // config.patch_size
            patches = torch.rand(1, num_patches, tower.patches.projection.in_features)
            tower.encode(patches, grid_positions(side, side)[None])
        else:
            tower(torch.rand(1, 3, 32, 32))
    assert counter.get_total_flops() == tower_flops(tower, num_patches)


def test_blocks_that_are_carried_but_not_read_cost_nothing():
    read = ViTConfig(width=32, depth=4, num_heads=2, mlp_width=64, patch_size=8)
    whole = dataclasses.replace(read, is_whole=True)
    costs = [tower_flops(ViT(config, image_size=32), 16) for config in (read, whole)]
    assert costs[0] == costs[1]


def test_a_linear_layer_costs_twice_its_weights():
    assert linear_flops(torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))) == 50


@pytest.mark.parametrize("name", DECODERS)
def test_keys_and_values_take_what_the_cache_allocates(name):
    config = DECODERS[name]
    cache = Decoder(config).make_cache(1, 10, torch.bfloat16, torch.device("cpu"))
    allocated = sum(kept.nbytes for kept in cache._layers if kept is not None)
    assert kv_bytes(config).per_token * 10 == allocated


def test_only_full_layers_remember_what_left_the_window():
    config = DECODERS["gemma4_e2b"]  # layers 0 and 2 are windowed, 1 and 3 full, 4 and 5 share
    found = kv_bytes(config)
    assert found.per_token == 2 * 2 * (2 * 2 * 48 + 2 * 2 * 64)
    assert found.per_far_token == 2 * 2 * (2 * 2 * 64)
    assert found.window == 64


def test_without_windows_every_layer_remembers_everything():
    found = kv_bytes(DecoderConfig())  # Llama 2 7B
    assert found.per_token == found.per_far_token == 2 * 2 * 32 * 32 * 128
    assert found.window is None
