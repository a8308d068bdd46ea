"""Dataclasses to plain values and back, with one-line errors that name the setting, the value and the choices."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from vla.errors import ConfigError, unknown_name

REQUIRED = "???"  # how OmegaConf spells a value that must be given


def default_values(config_class: type) -> dict[str, Any]:
    """Returns the defaults of a config dataclass as plain values; a field without a default becomes REQUIRED."""
    values: dict[str, Any] = {}
    hints = field_types(config_class)
    for field in dataclasses.fields(config_class):
        if field.default is not dataclasses.MISSING:
            values[field.name] = to_plain(field.default)
        elif field.default_factory is dataclasses.MISSING:
            values[field.name] = REQUIRED
        elif (
            dataclasses.is_dataclass(hints[field.name])
            and field.default_factory is hints[field.name]
        ):
            values[field.name] = default_values(
                hints[field.name]
            )  # keeps REQUIRED of nested fields
        else:
            values[field.name] = to_plain(field.default_factory())
    return values


def to_plain(value: Any) -> Any:
    """Returns `value` as dicts, lists, numbers, text and None only; enums become their lower-case name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Enum):
        return _enum_name(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain[T](config_class: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Returns a `config_class` filled from `values`.

    Args:
        config_class: a dataclass; fields may be numbers, text, Path, Enum, Optional, list, tuple, dict and dataclasses.
        values: plain values; missing ones take the dataclass's default.
        where: dotted name of this node, for messages.

    Raises:
        ConfigError: an unknown key, a missing value, or a value of the wrong type.
    """
    hints = field_types(config_class)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = _join(where, str(key))
        if key not in hints:
            raise ConfigError(
                unknown_name("setting", name, (_join(where, field) for field in hints))
            )
        if value == REQUIRED:
            raise ConfigError(f"{name} must be given; add {name}=VALUE ({type_name(hints[key])})")
        arguments[key] = _convert(hints[key], value, name)
    try:
        return config_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where or config_class.__name__}: {error}") from error


def field_types(config_class: type) -> dict[str, Any]:
    """Returns each field's resolved type, in the order of declaration."""
    hints = typing.get_type_hints(config_class)
    return {
        field.name: hints[field.name] for field in dataclasses.fields(config_class) if field.init
    }


def type_name(hint: Any) -> str:
    """Returns a field type as a person would write it: `int`, `float or null`, `a|b|c` for an enum."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(_enum_name(member) for member in hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            "null" if part is types.NoneType else type_name(part) for part in arguments
        )
    if origin is not None:
        inside = ", ".join("..." if part is Ellipsis else type_name(part) for part in arguments)
        return f"{origin.__name__}[{inside}]"
    names = {str: "text", Path: "path", types.NoneType: "null", bool: "true|false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, value, name)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(typing.cast(type, hint), value, name)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _convert_enum(hint, value, name)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        if origin is list or arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) == len(value):
            pairs = enumerate(zip(arguments, value, strict=True))
            return origin(_convert(part, item, f"{name}[{i}]") for i, (part, item) in pairs)
    if origin is list and value is not None and not isinstance(value, Mapping):
        return [_convert(arguments[0], value, name)]  # one value is a list of one
    if origin is dict and isinstance(value, Mapping):
        return {
            str(key): _convert(arguments[1], item, _join(name, str(key)))
            for key, item in value.items()
        }
    return _convert_scalar(hint, value, name)


def _convert_scalar(hint: Any, value: Any, name: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and is_number and float(value).is_integer():  # 1e6 is read as a float
        return int(value)
    if hint is float and is_number:
        return float(value)
    if hint is str and isinstance(value, (str, int, float)):
        return str(value)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value).expanduser()
    raise ConfigError(
        f"{name} = {value!r} is not {type_name(hint)}; give {name}=VALUE of that kind"
    )


def _convert_union(hint: Any, value: Any, name: str) -> Any:
    parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
    if value is None and len(parts) < len(typing.get_args(hint)):
        return None
    for part in parts[:-1]:
        try:
            return _convert(part, value, name)
        except ConfigError:
            continue
    return _convert(parts[-1], value, name)


def _convert_enum(hint: type[Enum], value: Any, name: str) -> Enum:
    if isinstance(value, hint):
        return value
    text = str(value).lower()
    for member in hint:
        if text in (str(member.value).lower(), member.name.lower()):
            return member
    raise ConfigError(unknown_name(name, value, (_enum_name(member) for member in hint)))


def _enum_name(member: Enum) -> str:
    return member.value if isinstance(member.value, str) else member.name.lower()


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
