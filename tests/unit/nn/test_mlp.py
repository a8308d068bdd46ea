import pytest
import torch
from torch.nn import functional as F

from vla.nn.mlp import Activation, GatedMLP, PlainMLP, activate


def test_the_first_half_of_the_gated_projection_is_the_gate():
    mlp = GatedMLP(4, 6, Activation.SILU)
    x = torch.randn(3, 4)
    gate, up = mlp.gate_up.weight[:6], mlp.gate_up.weight[6:]
    torch.testing.assert_close(mlp(x), (F.silu(x @ gate.T) * (x @ up.T)) @ mlp.down.weight.T)


def test_the_two_gelus_are_told_apart():
    x = torch.linspace(-3, 3, 13)[:, None]
    exact, tanh = PlainMLP(1, 4, Activation.GELU), PlainMLP(1, 4, Activation.GELU_TANH)
    tanh.load_state_dict(exact.state_dict())
    expected = exact.down(F.gelu(exact.up(x), approximate="tanh"))
    torch.testing.assert_close(tanh(x), expected)
    assert not torch.equal(exact(x), tanh(x))


@pytest.mark.parametrize("activation", Activation)
def test_every_activation_is_the_function_of_its_name(activation):
    x = torch.linspace(-3, 3, 13)
    naive = {
        Activation.GELU: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        Activation.GELU_TANH: x
        * 0.5
        * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        Activation.QUICK_GELU: x * torch.sigmoid(1.702 * x),
        Activation.SILU: x * torch.sigmoid(x),
    }
    torch.testing.assert_close(activate(x, activation), naive[activation])
