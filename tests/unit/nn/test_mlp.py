import torch
from torch.nn import functional as F

from vla.nn.mlp import Activation, GatedMLP, PlainMLP


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
