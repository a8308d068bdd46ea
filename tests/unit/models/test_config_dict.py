"""Model configs as JSON."""

import json
from dataclasses import dataclass, field
from enum import Enum

import pytest

from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.backbones.prismatic_config import openvla_7b, tiny
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.nn.rope import RopeConfig


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(kw_only=True)
class Inner:
    size: int = 1
    colour: Colour = Colour.RED


@dataclass(kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    others: list[Inner] = field(default_factory=list)
    maybe: Inner | None = None
    colours: list[Colour] = field(default_factory=list)
    pair: tuple[int, ...] | None = None
    gain: float | None = 0.5
    name: str


CONFIG = Outer(
    inner=Inner(size=3, colour=Colour.BLUE),
    others=[Inner(), Inner(size=9)],
    maybe=Inner(size=7),
    colours=[Colour.BLUE, Colour.RED],
    pair=(1, 2),
    gain=None,
    name="x",
)


def test_a_config_comes_back_from_json_as_it_was():
    assert config_from_dict(Outer, json.loads(json.dumps(config_to_dict(CONFIG)))) == CONFIG


def test_enums_stand_by_name():
    assert config_to_dict(CONFIG)["inner"] == {"size": 3, "colour": "BLUE"}
    assert config_to_dict(CONFIG)["colours"] == ["BLUE", "RED"]


def test_fields_that_an_older_version_did_not_write_take_their_default():
    assert config_from_dict(Outer, {"name": "x"}) == Outer(name="x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "nam": 1}, "unknown Outer setting 'nam'.* did you mean 'name'"),
        ({"name": "x", "inner": {"weight": 1}}, "unknown Inner setting 'weight'"),
        ({"name": "x", "inner": {"colour": "GREEN"}}, "unknown Inner.colour 'GREEN'; .*BLUE, RED"),
        ({}, "no settings of Outer: .*name"),
    ],
)
def test_what_this_version_does_not_know_is_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(Outer, values)


@pytest.mark.parametrize(
    "config",
    [
        openvla_7b(),
        tiny(300),
        decoder_presets.gemma3_270m(),
        DecoderConfig(rope_sections=[1, 2, 3], head=Head.OWN),
        presets.gemma4_tower_small(),
        RopeConfig(sections=(1, 2)),
    ],
)
def test_every_config_of_the_models_survives_json(config):
    values = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(type(config), values) == config
