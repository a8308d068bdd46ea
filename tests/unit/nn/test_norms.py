import torch

from vla.nn.norms import RMSNorm


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
