import pytest
import torch
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.connectors import (
    AveragePoolConnector,
    LinearConnector,
    MergeConnector,
    MLPConnector,
)
from vla.models.vision.clipped import ClippedLinear
from vla.models.vision.pooling import AttentionPool, AveragePool
from vla.nn.mlp import Activation
from vla.nn.positions import grid_positions


def attention_pool() -> AttentionPool:
    torch.manual_seed(0)
    pool = AttentionPool(16, 2, 32, Activation.GELU_TANH, 1e-6)
    torch.nn.init.normal_(pool.probe)
    return pool


def test_an_attention_pool_equals_torch_s_own_attention():
    pool, patches = attention_pool(), torch.randn(3, 7, 16)
    reference = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    reference.in_proj_weight, reference.in_proj_bias = (
        pool.attention.qkv.weight,
        pool.attention.qkv.bias,
    )
    reference.out_proj = pool.attention.out
    attended = reference(pool.probe.expand(3, 1, -1), patches, patches)[0][:, 0]
    expected = attended + pool.mlp(pool.mlp_norm(attended))
    torch.testing.assert_close(pool(patches), expected, atol=1e-6, rtol=0.0)


def test_an_attention_pool_does_not_read_padding():
    pool, patches = attention_pool(), torch.randn(2, 7, 16)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, 4:] = False
    torch.testing.assert_close(pool(patches, valid)[0], pool(patches[:1, :4])[0])


def test_an_average_pool_equals_the_average_pooling_of_a_picture():
    """Torch's own pooling of a map of 6 rows and 9 columns; ours also multiplies by sqrt(4)."""
    features = torch.randn(2, 54, 4)
    expected = F.avg_pool2d(features.view(2, 6, 9, 4).permute(0, 3, 1, 2), 3).flatten(2).mT * 2
    positions = grid_positions(6, 9).expand(2, -1, -1)
    pooled, there = AveragePool(4, 3)(features, positions)
    torch.testing.assert_close(pooled, expected)
    assert there.all()


def test_an_average_pool_counts_no_padding_and_says_which_tokens_there_are():
    features = torch.full((1, 12, 1), float("nan"))
    features[0, :8, 0] = torch.arange(8.0)
    positions = torch.full((1, 12, 2), -1)
    positions[0, :8] = grid_positions(2, 4)
    pooled, there = AveragePool(1, 2)(features, positions, (positions >= 0).all(dim=-1))
    assert there.tolist() == [[True, True, False]]
    assert pooled[0, :2, 0].tolist() == [2.5, 4.5]  # rows 0 1 2 3 and 4 5 6 7


def test_pooled_tokens_are_standardised_with_shift_and_gain():
    pool = AveragePool(4, 1, is_standardised=True)
    pool.shift.fill_(3.0)
    pool.gain.fill_(0.5)
    positions = grid_positions(1, 1)[None]
    pooled, _ = pool(torch.ones(1, 1, 4), positions)
    assert pooled.tolist() == [[[-0.5] * 4]]


def test_patches_that_do_not_fill_squares_are_refused():
    with pytest.raises(
        ConfigError, match=r"10 patches .* squares of 3 x 3; pad to a multiple of 9"
    ):
        AveragePool(4, 3)(torch.zeros(1, 10, 4), torch.zeros(1, 10, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="10 patches cannot be merged by 4"):
        MergeConnector(4, 8)(torch.zeros(1, 10, 4))


def test_a_merger_puts_four_patches_that_follow_each_other_side_by_side():
    merger = MergeConnector(4, 8)
    features = torch.randn(2, 12, 4)
    assert merger(features).shape == (2, 3, 8)
    changed = features.clone()
    changed[0, 5, 0] += 1.0
    difference = (merger(changed) - merger(features)).abs().sum(dim=-1)
    assert (difference > 1e-4).tolist() == [[False, True, False], [False, False, False]]


def test_connectors_give_tokens_of_the_decoder_s_width():
    features = torch.randn(2, 9, 4)
    assert LinearConnector(4, 6)(features).shape == (2, 9, 6)
    assert MLPConnector(4, 6)(features).shape == (2, 9, 6)
    positions = grid_positions(3, 3).expand(2, -1, -1)
    tokens, there = AveragePoolConnector(4, 6, side=3)(features, positions)
    assert tokens.shape == (2, 1, 6)
    assert there.shape == (2, 1)


def test_a_clipped_layer_without_bounds_is_a_linear_layer():
    layer, x = ClippedLinear(4, [2, 3]), 100.0 * torch.randn(5, 4)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight))


def test_each_stacked_matrix_clips_within_its_own_bounds():
    layer, x = ClippedLinear(4, [2, 3]), torch.randn(50, 4)
    layer.input_min.copy_(torch.tensor([-0.1, -torch.inf]))
    layer.output_max.copy_(torch.tensor([torch.inf, 0.2]))
    first, second = layer.weight.split([2, 3])
    expected = [F.linear(x.clamp(min=-0.1), first), F.linear(x, second).clamp(max=0.2)]
    torch.testing.assert_close(layer(x), torch.cat(expected, dim=-1))
