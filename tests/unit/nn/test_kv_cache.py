import pytest
import torch

from vla.nn.kv_cache import KVCache, KVShape


def _cache(*shapes: KVShape | None, max_tokens: int = 4) -> KVCache:
    return KVCache(
        shapes,
        batch_size=2,
        max_tokens=max_tokens,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def test_what_is_appended_comes_back_after_what_was_there():
    cache = _cache(KVShape(1, 3))
    k, v = torch.randn(2, 2, 1, 4, 3)
    first = cache.append(0, k[:, :, :3], v[:, :, :3])
    cache.advance(3)
    whole = cache.append(0, k[:, :, 3:], v[:, :, 3:])
    cache.advance(1)
    assert cache.length == 4
    torch.testing.assert_close(first, (k[:, :, :3], v[:, :, :3]))
    torch.testing.assert_close(whole, (k, v))


def test_all_layers_of_a_step_append_at_one_place_and_may_differ_in_shape():
    cache = _cache(KVShape(1, 3), KVShape(2, 5))
    for step in range(2):
        for layer, (heads, head_dim) in enumerate([(1, 3), (2, 5)]):
            keys, _ = cache.append(layer, *torch.randn(2, 2, heads, 2, head_dim))
            assert keys.shape == (2, heads, 2 * (step + 1), head_dim)
        cache.advance(2)


def test_a_full_cache_says_how_many_tokens_were_too_many():
    cache = _cache(KVShape(1, 4), max_tokens=2)
    with pytest.raises(IndexError, match="holds 2 tokens; 3 were"):
        cache.append(0, torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4))


def test_a_layer_that_shares_keys_has_no_room():
    cache = _cache(KVShape(1, 4), None)
    with pytest.raises(IndexError, match="layer 1 has no keys of its own"):
        cache.append(1, torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 1, 4))


def test_a_peek_shows_new_tokens_after_the_kept_ones_and_keeps_none():
    cache = _cache(KVShape(1, 3), max_tokens=3)
    k, v = torch.randn(2, 2, 1, 5, 3)
    cache.append(0, k[:, :, :3], v[:, :, :3])
    cache.advance(3)
    for _ in range(2):
        seen = cache.peek()
        torch.testing.assert_close(seen.append(0, k[:, :, 3:], v[:, :, 3:]), (k, v))
        seen.advance(2)
        assert seen.length == cache.length == 3
