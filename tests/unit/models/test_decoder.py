import pytest
import torch

from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.decoder import Decoder, DecoderConfig
from vla.nn.masks import PrefixAttention, attention_mask

TINY = DecoderConfig(
    vocab_size=50, width=16, depth=2, num_heads=4, num_kv_heads=2, head_dim=4, mlp_width=32
)


def test_a_token_does_not_know_what_follows_it():
    decoder = Decoder(TINY)
    x, positions = torch.randn(1, 5, 16), torch.arange(5)[None]
    mask = attention_mask(
        torch.ones(1, 5, dtype=torch.bool), 5, attention=PrefixAttention.CAUSAL, is_suffix_parallel=False
    )  # fmt: skip
    before = decoder(x, may_attend=mask, positions=positions)
    x = x.clone()
    x[:, 3:] += 1.0
    after = decoder(x, may_attend=mask, positions=positions)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


def test_llama2_7b_has_the_size_it_is_named_after():
    with torch.device("meta"):
        decoder = Decoder(decoder_presets.llama2_7b())
    head = 32064 * 4096
    num_parameters = sum(p.numel() for p in decoder.parameters()) + head
    assert (
        num_parameters == 6_738_415_616 + 2 * 64 * 4096
    )  # Llama 2 7B and its 64 added rows, twice


def test_heads_that_cannot_be_grouped_are_refused():
    with pytest.raises(ConfigError, match="4 query heads cannot share 3 key-value heads"):
        DecoderConfig(num_heads=4, num_kv_heads=3)
