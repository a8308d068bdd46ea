"""Every YAML file composes into the dataclass it is for, and says nothing that a dataclass does not know."""

import dataclasses
import importlib
import typing
from pathlib import Path

import pytest

from vla.cli import config
from vla.cli.verbs import VERBS
from vla.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"
TOP_LEVEL = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
CHOICES = sorted(
    (path.parent.relative_to(CONFIGS).as_posix(), path.stem) for path in CONFIGS.glob("*/*.yaml")
)


def _config_class(verb: str) -> type:
    return typing.get_type_hints(importlib.import_module(VERBS[verb].module).run)["cfg"]


def _verb_of(config_name: str) -> str:
    return next(name for name, verb in VERBS.items() if verb.config_name == config_name)


def _verbs_with_group(group: str) -> list[str]:
    with_group = []
    for name, verb in VERBS.items():
        text = (CONFIGS / f"{verb.config_name}.yaml").read_text()
        if f"{group}:" in text or f"/{group}" in text or f"optional {group}" in text:
            with_group.append(name)
    return with_group


def test_every_verb_has_its_file_and_every_file_its_verb():
    assert sorted({verb.config_name for verb in VERBS.values()}) == TOP_LEVEL


@pytest.mark.parametrize("config_name", TOP_LEVEL)
def test_a_verbs_own_file_composes(config_name: str):
    config_class = _config_class(_verb_of(config_name))
    composed = config.compose(config_name, config_class, [])
    assert dataclasses.is_dataclass(composed)
    assert isinstance(composed, config_class)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_wherever_its_group_is_used(group: str, choice: str):
    verbs = _verbs_with_group(group)
    assert verbs, f"no verb uses configs/{group}"
    for verb in verbs:
        composed = config.compose(
            VERBS[verb].config_name, _config_class(verb), [f"{group}={choice}"]
        )
        assert dataclasses.is_dataclass(composed)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_refuses_a_setting_it_does_not_know(verb: str):
    with pytest.raises(ConfigError, match="unknown setting 'no_such_setting'"):
        config.compose(VERBS[verb].config_name, _config_class(verb), ["no_such_setting=1"])


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_setting_of_a_verb_can_be_shown(verb: str):
    config_class = _config_class(verb)
    shown = config.compose_values(VERBS[verb].config_name, config_class, [])
    assert set(shown) == {field.name for field in dataclasses.fields(config_class)}
