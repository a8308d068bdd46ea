import pytest
import torch
from torch import Tensor, nn

from vla.nn.attention import KeysValues
from vla.nn.block import Block, BlockConfig
from vla.nn.kv_cache import KVCache, KVShape
from vla.nn.masks import attention_mask, causal_blocks
from vla.nn.mlp import Activation, GatedMLP, PlainMLP
from vla.nn.norms import Norm
from vla.nn.rope import RopeConfig, rope_rotation


def _block(**changes) -> Block:
    torch.manual_seed(0)
    shape = {"width": 16, "num_heads": 4, "mlp_width": 24, "activation": Activation.GELU_TANH}
    block = Block(BlockConfig(**{**shape, **changes})).eval()
    for parameter in block.parameters():
        parameter.data.normal_(std=0.5)
    return block


def _given(module: nn.Module | None, x: Tensor) -> Tensor:
    return x if module is None else module(x)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layer_scale": 0.1},
        {"norm": Norm.RMS_OFFSET, "has_post_norms": True, "is_gated": True},
        {"norm": Norm.RMS, "has_post_norms": True, "layer_scale": 0.1},
    ],
    ids=["plain", "layer scale", "post norms", "both"],
)
def test_a_block_adds_two_branches_each_normalised_before_and_after_and_scaled(changes):
    block, x = _block(**changes), torch.randn(2, 5, 16)
    branch = _given(block.attention_post_norm, block.attention(block.attention_norm(x)))
    middle = x + branch * (1.0 if block.attention_scale is None else block.attention_scale)
    branch = _given(block.mlp_post_norm, block.mlp(block.mlp_norm(middle)))
    expected = middle + branch * (1.0 if block.mlp_scale is None else block.mlp_scale)
    torch.testing.assert_close(block(x), expected)


def test_norms_and_scales_are_there_where_the_config_says_so():
    plain, rich = _block(), _block(has_post_norms=True, layer_scale=1e-5, is_gated=True)
    assert isinstance(plain.mlp, PlainMLP)
    assert isinstance(rich.mlp, GatedMLP)
    names = {name.split(".")[0] for name, _ in rich.named_parameters()}
    assert names - {name.split(".")[0] for name, _ in plain.named_parameters()} == {
        "attention_post_norm",
        "mlp_post_norm",
        "attention_scale",
        "mlp_scale",
    }


@torch.no_grad()
def test_reading_with_a_cache_equals_reading_all_at_once():
    block, x = _block(num_kv_heads=2), torch.randn(2, 6, 16)
    valid = torch.tensor([[False, True, True, True, True, True], [True] * 6])
    mask = attention_mask(valid, causal_blocks(valid))
    rotation = rope_rotation(torch.arange(6).expand(2, 6), 4, RopeConfig())
    whole = block(x, may_attend=mask, rotation=rotation)
    cache = KVCache(
        [KVShape(2, 4)], batch_size=2, max_tokens=6, dtype=x.dtype, device=torch.device("cpu")
    )
    parts = []
    for start, stop in [(0, 3), (3, 4), (4, 6)]:
        positions = torch.arange(start, stop).expand(2, -1)
        parts.append(
            block(
                x[:, start:stop],
                may_attend=mask[:, :, start:stop, :stop],
                rotation=rope_rotation(positions, 4, RopeConfig()),
                remember=lambda k, v: cache.append(0, k, v),
            )
        )
        cache.advance(stop - start)
    torch.testing.assert_close(torch.cat(parts, dim=1)[valid], whole[valid], atol=1e-5, rtol=0)


def test_a_block_that_shares_keys_reads_those_it_is_given():
    owner, sharer = _block(), _block(keys_values=KeysValues.SHARED)
    x = torch.randn(2, 5, 16)
    _, k, v = owner.attention.project(x, None)
    found = sharer(x, remember=lambda *_: (k, v))
    q, _, _ = sharer.attention.project(sharer.attention_norm(x), None)
    middle = x + sharer.attention.read(q, k, v, None)
    torch.testing.assert_close(found, middle + sharer.mlp(sharer.mlp_norm(middle)))


def test_a_block_that_shares_keys_and_is_given_none_is_refused():
    with pytest.raises(TypeError, match="needs `remember`"):
        _block(keys_values=KeysValues.SHARED)(torch.randn(2, 5, 16))
