import math

import pytest
import torch
from torch.nn import functional as F

from vla.nn.attention import Attention, AttentionConfig, KeysValues, attend
from vla.nn.masks import attention_mask, causal_blocks
from vla.nn.norms import Norm
from vla.nn.rope import RopeConfig, apply_rope, rope_rotation

POSITIONS = torch.arange(6).expand(2, 6)
ROTATION = rope_rotation(POSITIONS, 4, RopeConfig())


def _causal(batch: int, tokens: int) -> torch.Tensor:
    valid = torch.ones(batch, tokens, dtype=torch.bool)
    return attention_mask(valid, causal_blocks(valid))


def _naive(q, k, v, mask, scale=None, softcap=None):
    """One query at a time."""
    out = torch.zeros_like(q)
    batch, heads, tokens, head_dim = q.shape
    group = heads // k.shape[1]
    for b in range(batch):
        for h in range(heads):
            for t in range(tokens):
                seen = mask[b, 0, t].nonzero().flatten()
                scores = k[b, h // group, seen] @ q[b, h, t] * (scale or 1 / math.sqrt(head_dim))
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                out[b, h, t] = scores.softmax(dim=0) @ v[b, h // group, seen]
    return out


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("is_training", [True, False])
def test_grouped_attention_agrees_with_one_query_at_a_time(num_kv_heads, is_training):
    q, k, v = torch.randn(2, 4, 5, 8), *torch.randn(2, 2, num_kv_heads, 5, 8)
    mask = _causal(2, 5)
    with torch.set_grad_enabled(is_training):
        torch.testing.assert_close(
            attend(q, k, v, mask), _naive(q, k, v, mask), atol=1e-5, rtol=1e-5
        )


def test_without_a_mask_everything_reads_everything():
    q, k, v = torch.randn(3, 1, 2, 4, 8)
    everything = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(
        attend(q, k, v, None), _naive(q, k, v, everything), atol=1e-5, rtol=1e-5
    )


def test_gradients_agree_with_the_fused_kernel():
    mask, inputs = _causal(1, 6), torch.randn(3, 1, 2, 6, 8)
    ours, fused = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    attend(*ours, mask).square().sum().backward()
    attended = torch.nn.functional.scaled_dot_product_attention(*fused, attn_mask=mask)
    attended.square().sum().backward()
    torch.testing.assert_close(ours.grad, fused.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_training", [True, False])
def test_scores_are_scaled_and_then_soft_capped(is_training):
    q, k, v = torch.randn(1, 4, 5, 8) * 5, *torch.randn(2, 1, 2, 5, 8)
    mask, options = _causal(1, 5), {"scale": 0.7, "softcap": 2.0}
    with torch.set_grad_enabled(is_training):
        found = attend(q, k, v, mask, **options)
    torch.testing.assert_close(found, _naive(q, k, v, mask, **options), atol=1e-5, rtol=1e-5)


def _attention(**changes) -> Attention:
    torch.manual_seed(0)
    shape = {"width": 16, "num_heads": 4, "num_kv_heads": 2, "head_dim": 4}
    attention = Attention(AttentionConfig(**shape, **changes)).eval()
    for parameter in attention.parameters():
        parameter.data.normal_()
    return attention


def test_the_rows_of_the_projection_are_all_queries_then_all_keys_then_all_values():
    attention, x = _attention(qkv_bias=True), torch.randn(2, 6, 16)
    q_rows, k_rows, v_rows = attention.qkv.weight.split([16, 8, 8])
    q_bias, k_bias, v_bias = attention.qkv.bias.split([16, 8, 8])
    q, k, v = (
        F.linear(x, rows, bias).unflatten(-1, (-1, 4))
        for rows, bias in ((q_rows, q_bias), (k_rows, k_bias), (v_rows, v_bias))
    )
    found = attention.project(x, ROTATION)
    torch.testing.assert_close(found[0], apply_rope(q, ROTATION).transpose(1, 2))
    torch.testing.assert_close(found[1], apply_rope(k, ROTATION).transpose(1, 2))
    torch.testing.assert_close(found[2], v.transpose(1, 2))


@pytest.mark.parametrize("norm", [Norm.RMS, Norm.RMS_OFFSET])
def test_queries_and_keys_are_normalised_before_they_turn_and_values_without_weights(norm):
    attention = _attention(has_qk_norm=True, has_v_norm=True, norm=norm, norm_eps=1e-3)
    x = torch.randn(2, 6, 16)
    q, k, v = attention.qkv(x).unflatten(-1, (-1, 4)).split([4, 2, 2], dim=2)

    def normed(y: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
        return y / (y.square().mean(dim=-1, keepdim=True) + 1e-3).sqrt() * weight

    offset = float(norm is Norm.RMS_OFFSET)
    q_gain, k_gain = attention.q_norm.weight + offset, attention.k_norm.weight + offset
    found = attention.project(x, ROTATION)
    for ours, expected in zip(
        found,
        (
            apply_rope(normed(q, q_gain), ROTATION),
            apply_rope(normed(k, k_gain), ROTATION),
            normed(v, 1.0),
        ),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected.transpose(1, 2))


def test_tied_values_are_the_keys_before_norm_and_rotation():
    attention, x = _attention(keys_values=KeysValues.TIED), torch.randn(2, 6, 16)
    assert attention.qkv.out_features == 16 + 8
    _, k, v = attention.project(x, ROTATION)
    torch.testing.assert_close(apply_rope(v.transpose(1, 2), ROTATION).transpose(1, 2), k)


def test_a_layer_that_shares_keys_projects_queries_alone_and_cannot_attend_by_itself():
    attention, x = _attention(keys_values=KeysValues.SHARED), torch.randn(2, 6, 16)
    assert attention.qkv.out_features == 16
    assert attention.project(x, ROTATION)[1:] == (None, None)
    with pytest.raises(TypeError, match="shares keys cannot attend alone"):
        attention(x, may_attend=_causal(2, 6))


def test_a_sequence_that_attends_to_itself_equals_projecting_and_reading():
    attention, x = _attention(), torch.randn(2, 6, 16)
    q, k, v = attention.project(x, ROTATION)
    expected = attention.out(_naive(q, k, v, _causal(2, 6)).transpose(1, 2).flatten(2))
    with torch.no_grad():
        found = attention(x, may_attend=_causal(2, 6), rotation=ROTATION)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
