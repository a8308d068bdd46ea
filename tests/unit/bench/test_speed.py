"""Costs are counted, not guessed."""

import torch
from torch import nn

from vla.bench.speed import measure_speed
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny


def small() -> Prismatic:
    torch.manual_seed(0)
    return Prismatic(tiny(270, width=32, depth=1, vision_width=32, vision_depth=1, chunk_length=2))


def test_training_costs_about_three_forward_passes():
    report = measure_speed(small(), batch_size=2, rounds=1)
    assert 2.0 < report.train_mflop / report.forward_mflop < 3.5
    assert report.parameters == sum(p.numel() for p in small().parameters())
    assert report.actions_per_chunk == 2


def test_a_wider_model_costs_more_operations():
    wide = Prismatic(tiny(270, width=64, depth=1, vision_width=32, vision_depth=1, chunk_length=2))
    narrow_cost = measure_speed(small(), batch_size=1, rounds=1).forward_mflop
    assert measure_speed(wide, batch_size=1, rounds=1).forward_mflop > narrow_cost


def test_measuring_leaves_weights_and_gradients_alone():
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    measure_speed(model, batch_size=1, rounds=1)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in nn.Module.parameters(model))
