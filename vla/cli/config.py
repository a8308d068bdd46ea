"""From configs/*.yaml and key=value overrides to one dataclass: the only file that knows Hydra.

Choices live in `configs/<verb>.yaml` and its groups (`configs/env/`, `configs/policy/`, ...); fields, types and
defaults live in the verb's dataclass. The dataclass's defaults are the first entry (`schema`) of every defaults list,
so a key is known exactly when the dataclass has it; the composed values are checked and turned into it once.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vla
from vla.cli.convert import default_values, field_types, from_plain
from vla.errors import ConfigError, unknown_name


def config_directory() -> Path:
    """Returns the folder of YAML files: `configs/` beside the package in a checkout, `vla/configs` in a wheel."""
    package = Path(vla.__file__).resolve().parent
    for candidate in (package.parent / "configs", package / "configs"):
        if (candidate / "eval.yaml").is_file():
            return candidate
    raise ConfigError(f"no configs folder beside or inside {package}; reinstall the package")


def group_choices(group: str) -> list[str]:
    """Returns the names that `group=NAME` accepts, i.e. the YAML files of `configs/<group>/`."""
    return sorted(path.stem for path in (config_directory() / group).glob("*.yaml"))


def compose[T](config_name: str, config_class: type[T], overrides: Sequence[str]) -> T:
    """Returns the `config_class` that `configs/<config_name>.yaml` and the overrides amount to.

    Args:
        config_name: file stem in the configs folder.
        config_class: the verb's dataclass.
        overrides: `key=value` (nested with dots), `group=choice`, in Hydra's grammar. `policy=PATH` of an existing
            checkpoint stands for `policy=checkpoint policy.path=PATH`.

    Raises:
        ConfigError: an unknown key or choice, a value of the wrong type, or an override that cannot be read.
    """
    return from_plain(config_class, compose_values(config_name, config_class, overrides))


def compose_values(
    config_name: str, config_class: type, overrides: Sequence[str]
) -> dict[str, Any]:
    """Returns the composed settings as plain values, not yet checked for type; arguments and errors as `compose`."""
    texts = dict(
        override.split("=", 1)
        for override in overrides
        if _is_text_named_like_a_group(override, config_class)
    )
    checked = [
        rewritten
        for override in overrides
        if override.partition("=")[0] not in texts
        for rewritten in _check_override(override, config_class)
    ]
    return {**_hydra_compose(config_name, config_class, checked), **texts}


def _hydra_compose(config_name: str, config_class: type, overrides: list[str]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name="schema", node=OmegaConf.create(default_values(config_class)))
    try:
        with initialize_config_dir(str(config_directory()), version_base="1.3"):
            composed = hydra_compose(config_name, overrides=overrides)
            values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error
    return typing.cast(dict[str, Any], values)


def _check_override(override: str, config_class: type) -> list[str]:
    """Returns the override, or the two that `policy=PATH` stands for; raises before Hydra can speak in riddles."""
    key, equals, value = override.partition("=")
    name = key.lstrip("+~")
    if not equals and not key.startswith("~"):
        near = unknown_name("argument", override, field_types(config_class))
        raise ConfigError(f"{near}; settings are written key=value")
    group = name.partition("@")[0]
    if _is_group(group):
        return _check_choice(override, group, name, value)
    hint = _check_key(name, config_class)
    if equals and _is_list(hint) and "," in value and value[:1] not in "[('\"":
        override = f"{key}=[{value}]"  # a,b is a list where one is wanted, and never a sweep
    _check_grammar(override)
    return [override]


def _is_group(name: str) -> bool:
    return name.isidentifier() and (config_directory() / name).is_dir()


def _is_text_named_like_a_group(override: str, config_class: type) -> bool:
    """Whether Hydra would look for a file where the dataclass wants text: `vla describe backbone=NAME`."""
    name, equals, _ = override.partition("=")
    return bool(equals) and _is_group(name) and field_types(config_class).get(name) is str


def _check_choice(override: str, group: str, name: str, value: str) -> list[str]:
    if override.startswith("~") or value == "null" or value in group_choices(group):
        return [override]
    path = Path(value).expanduser()
    if group == "policy" and value and path.exists():
        return [
            f"{name}=checkpoint",
            f"{name.partition('@')[2] or name}.path={_quoted(str(path.resolve()))}",
        ]
    if group == "policy" and "/" in value:
        raise ConfigError(
            f"no checkpoint at {value}; give an existing directory, or one of {', '.join(group_choices(group))}"
        )
    hint = "; or give the path of a checkpoint directory" if group == "policy" else ""
    raise ConfigError(unknown_name(group, value, group_choices(group)) + hint)


def _check_key(name: str, config_class: type) -> Any:
    """Returns the type of the setting `name`, None where it is a key of a mapping; raises when there is no such one."""
    node: Any = config_class
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if not dataclasses.is_dataclass(node):
            return None
        hints = field_types(typing.cast(type, node))
        if part not in hints:
            prefix = "".join(f"{parent}." for parent in parts[:depth])
            raise ConfigError(
                unknown_name("setting", prefix + part, (prefix + field for field in hints))
            )
        node = _without_none(hints[part])
    return node


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple)


def _check_grammar(override: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        hint = "text with , : [ ] { } or quotes goes inside '...'"
        raise ConfigError(f"cannot read {override!r} ({reason}); {hint}") from error
    if parsed.is_sweep_override():
        raise ConfigError(
            f"{override!r} gives several values; write a list as [a,b], text with a comma as '...'"
        )


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
    return parts[0] if len(parts) == 1 else hint


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _one_line(error: BaseException) -> str:
    messages = [str(error), str(error.__cause__ or "")]
    lines = [
        line.strip() for message in messages for line in message.splitlines()[:1] if line.strip()
    ]
    return "; ".join(dict.fromkeys(lines))
