import pytest
import torch
from torch import nn

from vla.nn.norms import Norm, RMSNorm, make_norm


def _norm(width: int, dtype: torch.dtype) -> RMSNorm:
    norm = RMSNorm(width, eps=1e-5).to(dtype)
    norm.weight.data.normal_(1.0, 0.3)
    return norm


def test_the_result_is_x_over_its_root_mean_square_times_the_weight():
    norm = _norm(8, torch.float32)
    x = torch.randn(2, 3, 8)
    naive = x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), naive)


def test_training_on_a_cpu_gives_the_gradients_of_the_formula():
    norm = _norm(16, torch.float64)
    x = torch.randn(4, 5, 16, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    theirs = x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    (theirs * upstream).sum().backward()
    assert x.grad is not None
    expected = x.grad.clone(), norm.weight.grad.clone()
    x.grad = norm.weight.grad = None
    ours = norm(x)
    (ours * upstream).sum().backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close((x.grad, norm.weight.grad), expected)


def test_values_with_and_without_gradients_agree():
    norm, x = _norm(16, torch.float32), torch.randn(4, 16)
    with torch.no_grad():
        without = norm(x)
    torch.testing.assert_close(norm(x), without)


def test_a_bf16_input_gives_a_bf16_output_close_to_the_fp32_one():
    norm = _norm(64, torch.float32)
    x = torch.randn(8, 64)
    low = norm(x.bfloat16())
    assert low.dtype is torch.bfloat16
    torch.testing.assert_close(low.float(), norm(x), atol=0.06, rtol=0.02)


@pytest.mark.parametrize("is_training", [True, False])
def test_with_an_offset_the_factor_is_one_plus_the_weight(is_training):
    plain, offset = RMSNorm(8, eps=1e-3), RMSNorm(8, eps=1e-3, offset=True)
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(offset(x), plain(x))  # both start as a factor of one
    offset.weight.data.normal_()
    plain.weight.data.copy_(1.0 + offset.weight.data)
    with torch.set_grad_enabled(is_training):
        torch.testing.assert_close(offset(x), plain(x))


def test_a_small_offset_is_not_rounded_away_in_bf16():
    """1 + 0.003 is 1 in bf16; multiplied in fp32 it moves one value in two to the next bf16 number."""
    norm = RMSNorm(64, offset=True)
    x = torch.randn(8, 64).bfloat16()
    without = norm(x)
    norm.weight.data.fill_(0.003)
    assert norm.to(torch.bfloat16)(x).dtype is torch.bfloat16
    assert not torch.equal(norm(x), without)


def test_without_weights_nothing_is_learnt():
    norm, x = RMSNorm(8, eps=1e-5, has_weight=False), torch.randn(2, 8)
    assert list(norm.parameters()) == []
    torch.testing.assert_close(norm(x), x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt())


def test_every_kind_of_norm_is_made_with_its_epsilon():
    layer, rms, offset = (make_norm(kind, 8, 1e-2) for kind in Norm)
    x = torch.randn(4, 8)
    assert isinstance(layer, nn.LayerNorm)
    torch.testing.assert_close(layer(x), nn.functional.layer_norm(x, (8,), eps=1e-2))
    torch.testing.assert_close(rms(x), nn.functional.rms_norm(x, (8,), eps=1e-2))
    torch.testing.assert_close(offset(x), rms(x))
