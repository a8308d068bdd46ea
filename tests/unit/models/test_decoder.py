import pytest
import torch

from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig, Head
from vla.nn.attention import KeysValues
from vla.nn.masks import attention_mask, causal_blocks
from vla.nn.norms import Norm

SMALL = {
    "vocab_size": 50, "width": 16, "depth": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 4, "mlp_width": 32,
}  # fmt: skip
TINY = DecoderConfig(**SMALL)
GEMMA4_LIKE = DecoderConfig(
    **SMALL | {"depth": 6}, norm=Norm.RMS, has_post_norms=True, has_qk_norm=True, has_v_norm=True,
    attention_scale=1.0, window=3, full_layers=[2, 5], full_head_dim=8, full_num_kv_heads=1, full_rope_share=0.5,
    full_rope_theta=1e6, num_shared_layers=3, shared_mlp_factor=2, per_layer_width=4, per_layer_vocab_size=50,
    has_layer_scalars=True, head=Head.TIED, final_softcap=30.0, scales_embedding=True,
)  # fmt: skip


def _run(decoder: Decoder, ids: torch.Tensor, cache=None, num_past: int = 0) -> torch.Tensor:
    valid = torch.ones(ids.shape, dtype=torch.bool)
    blocks, new = causal_blocks(valid), ids.shape[1] - num_past
    near = None
    if decoder.config.window is not None:
        near = attention_mask(valid, blocks, window=decoder.config.window, num_queries=new)
    return decoder(
        decoder.embed(ids[:, num_past:]),
        may_attend=attention_mask(valid, blocks, num_queries=new),
        may_attend_near=near,
        positions=blocks[:, num_past:],
        cache=cache,
        token_ids=ids[:, num_past:],
    )


@pytest.mark.parametrize("config", [TINY, GEMMA4_LIKE])
def test_a_token_does_not_know_what_follows_it(config):
    decoder = Decoder(config)
    ids = torch.randint(50, (1, 7))
    before = _run(decoder, ids)
    ids = ids.clone()
    ids[:, 4:] = (ids[:, 4:] + 1) % 50
    after = _run(decoder, ids)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


@pytest.mark.parametrize("config", [TINY, GEMMA4_LIKE])
def test_reading_with_a_cache_equals_reading_all_at_once(config):
    decoder = Decoder(config).eval()
    ids = torch.randint(50, (2, 9))
    cache = decoder.make_cache(2, 9, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        whole = _run(decoder, ids)
        parts = [
            _run(decoder, ids[:, :stop], cache, start)
            for start, stop in [(0, 5), (5, 6), (6, 8), (8, 9)]
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_a_windowed_layer_forgets_what_lies_before_the_window():
    config = DecoderConfig(**SMALL | {"depth": 1}, window=3)
    decoder = Decoder(config)
    ids = torch.randint(50, (1, 6))
    before = _run(decoder, ids)[:, -1]
    ids[:, 0] = (ids[:, 0] + 1) % 50
    torch.testing.assert_close(_run(decoder, ids)[:, -1], before)
    ids[:, 3] = (ids[:, 3] + 1) % 50
    assert not torch.allclose(_run(decoder, ids)[:, -1], before)


def test_sharing_layers_read_the_last_layer_of_their_kind_that_has_keys():
    sources = [GEMMA4_LIKE.key_source(layer) for layer in range(6)]
    assert sources == [0, 1, 2, 1, 1, 2]
    assert Decoder(GEMMA4_LIKE).layers[3].attention.sizes == [4]


def test_a_layer_whose_values_are_its_keys_has_one_projection_for_both():
    config = DecoderConfig(**SMALL, window=3, full_layers=[1], full_values_are_keys=True)
    assert config.block(1).keys_values is KeysValues.TIED
    assert Decoder(config).layers[1].attention.qkv.out_features == (4 + 2) * 4


def test_soft_capped_logits_stay_within_the_cap():
    decoder = Decoder(GEMMA4_LIKE)
    logits = decoder.logits(1000 * torch.randn(1, 2, 16))
    assert logits.abs().max() <= 30.0
    assert logits.shape == (1, 2, 50)


def test_embeddings_are_scaled_in_the_dtype_of_the_weights():
    decoder = Decoder(DecoderConfig(**SMALL | {"width": 18}, scales_embedding=True)).bfloat16()
    ids = torch.tensor([[3]])
    rounded = torch.tensor(18**0.5).bfloat16()
    torch.testing.assert_close(decoder.embed(ids), decoder.token_embedding(ids) * rounded)


def test_llama2_7b_has_the_size_it_is_named_after():
    with torch.device("meta"):
        decoder = Decoder(decoder_presets.llama2_7b())
    num_parameters = sum(p.numel() for p in decoder.parameters())
    added_rows = 2 * 64 * 4096  # in the embedding and in the head
    assert num_parameters == 6_738_415_616 + added_rows


def test_heads_that_cannot_be_grouped_are_refused():
    with pytest.raises(ConfigError, match="4 query heads cannot share 3 key-value heads"):
        DecoderConfig(num_heads=4, num_kv_heads=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"full_layers": [2]}, "names layer 2; there are 2"),
        ({"num_shared_layers": 2}, "no layer of its kind has its own"),
    ],
)
def test_layers_that_cannot_exist_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        DecoderConfig(**SMALL, **changes)


def test_a_decoder_without_a_head_says_so():
    with pytest.raises(ConfigError, match="has no head"):
        Decoder(TINY).logits(torch.zeros(1, 1, 16))


def test_a_window_without_its_mask_is_refused():
    decoder = Decoder(DecoderConfig(**SMALL, window=3))
    ids, mask = torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    with pytest.raises(ConfigError, match="pass may_attend_near"):
        decoder(decoder.embed(ids), may_attend=mask, positions=ids)
