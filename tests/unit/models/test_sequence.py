import pytest
import torch

from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig
from vla.models.sequence import Prefix, continued, read


def _prefix(num_axes: int = 0) -> Prefix:
    """Rows of four and two valid tokens; two blocks."""
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    positions = torch.tensor([[0, 1, 2, 3], [0, 1, 1, 1]])
    blocks = torch.tensor([[0, 0, 2, 3]]).expand(2, -1)
    return Prefix(
        embeddings=torch.randn(2, 4, 32),
        valid=valid,
        positions=positions[..., None].expand(-1, -1, 3) if num_axes else positions,
        blocks=blocks,
        near_blocks=torch.tensor([[0, 1, 2, 3]]).expand(2, -1),
        token_ids=torch.zeros(2, 4, dtype=torch.int64),
        suffix_mask=torch.zeros_like(valid),
        is_image=torch.zeros_like(valid),
    )


@pytest.mark.parametrize(("is_parallel", "order"), [(True, [4, 4, 4]), (False, [4, 5, 6])])
def test_a_suffix_follows_each_rows_own_last_token_as_one_block_or_one_after_another(
    is_parallel, order
):
    whole = continued(_prefix(3), torch.ones(2, 3, 32), is_parallel=is_parallel)
    assert whole.positions[:, 4:, 2].tolist() == [[4, 5, 6], [2, 3, 4]]
    assert whole.blocks[0, 4:].tolist() == order
    assert whole.near_blocks is not None
    assert whole.near_blocks[0, 4:].tolist() == order
    assert whole.valid[:, 4:].all()
    assert whole.token_ids.shape == whole.is_image.shape == whole.suffix_mask.shape == (2, 7)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("is_parallel", [True, False])
def test_reading_a_suffix_after_its_cached_prefix_equals_reading_both_at_once(is_parallel, window):
    torch.manual_seed(0)
    shape = DecoderConfig(
        vocab_size=9, width=32, depth=3, num_heads=2, num_kv_heads=1, head_dim=16, mlp_width=48,
        window=window, full_layers=[1],
    )  # fmt: skip
    decoder, prefix = Decoder(shape).eval(), _prefix()
    whole = continued(prefix, torch.randn(2, 3, 32), is_parallel=is_parallel)
    with torch.no_grad():
        at_once = read(decoder, whole)
        cache = decoder.make_cache(2, 7, torch.float32, torch.device("cpu"))
        before = read(decoder, prefix, cache)
        peeked, after = read(decoder, whole, cache.peek()), read(decoder, whole, cache)
    valid = prefix.valid
    torch.testing.assert_close(before[valid], at_once[:, :4][valid], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after, at_once[:, 4:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(peeked, after)
    assert cache.length == 7
