import dataclasses

import torch

from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig
from vla.models.initialisation import initialise
from vla.models.vision import presets
from vla.models.vision.pooling import AttentionPool
from vla.models.vision.vit import ViT
from vla.nn.mlp import Activation

CONFIG = DecoderConfig(
    vocab_size=200, width=64, depth=8, num_heads=4, num_kv_heads=4, head_dim=16, mlp_width=128
)


def test_projections_into_the_residual_stream_start_smaller_than_the_others():
    decoder = Decoder(CONFIG)
    initialise(decoder)
    attention = decoder.layers[3].attention
    ratio = attention.qkv.weight.std() / attention.out.weight.std()
    torch.testing.assert_close(ratio, torch.tensor(4.0), atol=0.3, rtol=0.0)  # sqrt(2 * 8 blocks)


def test_norms_start_as_the_identity():
    decoder = Decoder(CONFIG)
    initialise(decoder)
    torch.testing.assert_close(decoder.final_norm.weight, torch.ones(64), rtol=0, atol=0)


def test_tables_and_the_probe_of_a_tower_start_small_but_not_at_zero():
    tower = ViT(dataclasses.replace(presets.gemma4_tower_small(), depth=1, num_axis_positions=20))
    pool = AttentionPool(64, 4, 64, Activation.GELU, 1e-6)
    for module, tensor in ((tower, tower.axis_tables), (pool, pool.probe)):
        initialise(module)
        assert 0.01 < float(tensor.detach().std()) < 0.03
