import math

import pytest
import torch

from vla.nn.attention import Attention, attend
from vla.nn.kv_cache import KVCache
from vla.nn.masks import PrefixAttention, attention_mask
from vla.nn.rope import rope_rotation


def _causal(batch: int, tokens: int) -> torch.Tensor:
    return attention_mask(
        torch.ones(batch, tokens, dtype=torch.bool),
        tokens,
        attention=PrefixAttention.CAUSAL,
        is_suffix_parallel=False,
    )


def _naive(q, k, v, mask):
    """One query at a time."""
    out = torch.zeros_like(q)
    batch, heads, tokens, head_dim = q.shape
    group = heads // k.shape[1]
    for b in range(batch):
        for h in range(heads):
            for t in range(tokens):
                seen = mask[b, 0, t].nonzero().flatten()
                scores = k[b, h // group, seen] @ q[b, h, t] / math.sqrt(head_dim)
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


def test_reading_with_a_cache_equals_reading_all_at_once():
    torch.manual_seed(0)
    attention = Attention(16, 4, num_kv_heads=2).eval()
    x, positions = torch.randn(2, 6, 16), torch.arange(6).expand(2, 6)
    rotation = rope_rotation(positions, 4, 10000.0)
    cache = KVCache(
        num_layers=1, batch_size=2, num_kv_heads=2, max_tokens=6, head_dim=4,
        dtype=torch.float32, device=torch.device("cpu"),
    )  # fmt: skip
    with torch.no_grad():
        whole = attention(x, may_attend=_causal(2, 6), rotation=rotation)
        parts = []
        for start, stop in [(0, 3), (3, 4), (4, 5), (5, 6)]:
            part = attention(
                x[:, start:stop],
                may_attend=_causal(2, 6)[:, :, start:stop, :stop],
                rotation=rope_rotation(positions[:, start:stop], 4, 10000.0),
                cache=cache,
            )
            cache.advance(stop - start)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)


def test_a_full_cache_says_how_many_tokens_were_too_many():
    cache = KVCache(
        num_layers=1, batch_size=1, num_kv_heads=1, max_tokens=2, head_dim=4,
        dtype=torch.float32, device=torch.device("cpu"),
    )  # fmt: skip
    with pytest.raises(IndexError, match="holds 2 tokens; 3 were"):
        cache.append(0, torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))
