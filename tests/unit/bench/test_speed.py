"""Costs are counted, not guessed."""

import torch
from torch import nn

from vla.bench.speed import measure_speed
from vla.models.action_config import ActionConfig
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny

PROMPT, VIEWS = torch.arange(1, 10), (2, 64)


def small(width: int = 32) -> VisionLanguageAction:
    torch.manual_seed(0)
    backbone = Prismatic(tiny(270, width=width, depth=1, vision_width=32, vision_depth=1))
    return VisionLanguageAction(backbone, ActionConfig(text_vocab_size=270, chunk_length=2))


def test_training_costs_about_three_forward_passes():
    report = measure_speed(small(), PROMPT, VIEWS, batch_size=2, rounds=1)
    assert 2.0 < report.train_mflop / report.forward_mflop < 3.5
    assert report.parameters == sum(p.numel() for p in small().parameters())
    assert report.actions_per_chunk == 2


def test_a_wider_model_costs_more_operations():
    narrow_cost = measure_speed(small(), PROMPT, VIEWS, batch_size=1, rounds=1).forward_mflop
    assert (
        measure_speed(small(64), PROMPT, VIEWS, batch_size=1, rounds=1).forward_mflop > narrow_cost
    )


def test_measuring_leaves_weights_and_gradients_alone():
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    measure_speed(model, PROMPT, VIEWS, batch_size=1, rounds=1)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in nn.Module.parameters(model))
