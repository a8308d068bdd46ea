import dataclasses

import pytest
from torch import nn

from vla.errors import ConfigError
from vla.models.vision import presets
from vla.models.vision.vit import ViT
from vla.training.config import Part
from vla.training.stages import freeze


def _tower(**changes) -> ViT:
    return ViT(dataclasses.replace(presets.tiny_siglip(32, 2), **changes), 16)


def test_frozen_parts_are_not_trained_and_all_else_is():
    model = nn.ModuleDict({"vision": _tower(), "head": nn.Linear(2, 3)})
    assert freeze(model, [Part.VISION], {Part.VISION: model["vision"]}) == 9
    assert freeze(model, [], {}) == sum(p.numel() for p in model.parameters())


def test_what_a_whole_tower_holds_without_reading_it_stays_frozen():
    reading = {"output_block": 0, "has_final_norm": False}
    whole, part = _tower(**reading, is_whole=True), _tower(**reading)
    assert freeze(whole, [], {}) == sum(p.numel() for p in part.parameters())


def test_freezing_everything_is_refused():
    model = _tower()
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze(model, [Part.VISION], {Part.VISION: model})
