"""Model configs to JSON and back: dataclasses, lists of them, enums by name."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from vla.errors import ConfigError, unknown_name


def config_to_dict(config: Any) -> dict[str, Any]:
    """Returns the fields of a config dataclass as plain numbers, strings, lists and dicts; enum members by name."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def config_from_dict[T](config_class: type[T], values: Mapping[str, Any]) -> T:
    """Returns the config that `config_to_dict` wrote; fields that are absent take their default.

    Raises:
        ConfigError: a field that this version does not know, a name that is no member of its enum, or a missing field.
    """
    hints = typing.get_type_hints(config_class)
    kind = f"{config_class.__name__} setting"
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"{unknown_name(kind, name, hints)}; another version wrote it")
        arguments[name] = _typed(hints[name], value, f"{config_class.__name__}.{name}")
    try:
        return config_class(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"these are no settings of {config_class.__name__}: {error}; another version or another model wrote them"
        ) from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value`, with the dataclasses and enums that `hint` asks for made of their plain forms."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return config_from_dict(typing.cast(type, hint), value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if value not in hint.__members__:
            raise ConfigError(unknown_name(where, value, hint.__members__))
        return hint[value]
    container = typing.get_origin(hint)
    if container in (list, tuple) and isinstance(value, list):
        items = [_typed(typing.get_args(hint)[0], item, where) for item in value]
        return items if container is list else tuple(items)
    return value
