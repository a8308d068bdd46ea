"""Schedule, parameter groups and the weight average."""

import pytest
import torch
from torch import nn

from vla.training.config import OptimConfig
from vla.training.optim import WeightAverage, build_optimizer, learning_rate

CFG = OptimConfig(learning_rate=1.0, warmup_steps=10, final_learning_rate_fraction=0.1)


def test_the_rate_rises_linearly_and_ends_at_its_final_fraction():
    assert learning_rate(CFG, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(CFG, 4, 0.0) == pytest.approx(0.5)
    assert learning_rate(CFG, 100, 0.5) == pytest.approx(0.55)
    assert learning_rate(CFG, 100, 1.0) == pytest.approx(0.1)
    assert learning_rate(CFG, 100, 1.7) == pytest.approx(0.1)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    groups = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(model[0].weight)] == 0.3
    assert decays[id(model[0].bias)] == decays[id(model[1].weight)] == 0.0


def test_frozen_parameters_are_left_to_themselves():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = build_optimizer(model, OptimConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_the_average_follows_the_weights_and_swaps_in_and_out():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average.update(step=0)  # decay (1 + 0) / (10 + 0) = 0.1 at first
    assert average.weights["weight"].item() == pytest.approx(0.9)
    average.update(step=1000)  # then the configured half
    assert average.weights["weight"].item() == pytest.approx(0.95)
    average.swap()
    assert model.weight.item() == pytest.approx(0.95)
    average.swap()
    assert model.weight.item() == 1.0
