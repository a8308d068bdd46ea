"""What `vla --help` and `vla <verb> --help` print: every field with its type, default and comment in the source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import shutil
import textwrap
import tokenize
import types
import typing
from collections.abc import Mapping
from typing import Any

from vla.cli.config import config_directory, group_choices
from vla.cli.convert import REQUIRED, field_types, type_name

INDENT = 2


def field_comments(config_class: type) -> dict[str, str]:
    """Returns each field's comment: the one after it on its line, or else the comment lines right above it.

    Inherited fields are included. A field without a comment maps to "".
    """
    comments: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if dataclasses.is_dataclass(base):
            comments.update(_own_comments(base))
    return {name: comments.get(name, "") for name in field_types(config_class)}


def field_rows(
    config_class: type, values: Mapping[str, Any], where: str = ""
) -> list[tuple[str, str, str, str]]:
    """Returns (dotted name, type, default, comment) of every field; fields of nested dataclasses follow their parent.

    Args:
        config_class: the dataclass.
        values: its composed plain values, from which the defaults are read.
        where: dotted name of this node.
    """
    rows: list[tuple[str, str, str, str]] = []
    comments = field_comments(config_class)
    for name, hint in field_types(config_class).items():
        dotted = f"{where}.{name}" if where else name
        nested, value = _nested_dataclass(hint), values.get(name, REQUIRED)
        if nested is not None and isinstance(value, Mapping):
            rows += field_rows(nested, value, dotted)
        else:
            rows.append((dotted, type_name(hint), _value_text(value), comments[name]))
    return rows


def verb_text(
    verb: str, summary: str, examples: list[str], config_class: type, values: Mapping[str, Any]
) -> str:
    """Returns the help text of one verb."""
    lines = [
        f"vla {verb}: {summary}",
        "",
        "Examples:",
        *(f"  {example}" for example in examples),
        "",
    ]
    groups = [
        name
        for name, hint in field_types(config_class).items()
        if hint is not str and (config_directory() / name).is_dir()
    ]
    if groups:
        lines.append("Choices (group=NAME):")
        lines += _columns(
            [(group, ", ".join(group_choices(group)) + _path_hint(group)) for group in groups]
        )
        lines.append("")
    lines.append("Settings (name=VALUE), their type and default:")
    for name, kind, default, comment in field_rows(config_class, values):
        lines += _setting(name, kind, default, comment)
    return "\n".join([*lines, "", *_columns(COMMON_OPTIONS)])


COMMON_OPTIONS = [
    ("output_root=PATH", "where runs are kept; default $VLA_OUTPUTS or ./outputs"),
    ("run_directory=PATH", "use exactly this folder instead of outputs/<verb>/<time>"),
    ("--cfg job", "print every resolved value and stop"),
    ("--debug", "show the traceback of an error"),
]


def overview_text(verbs: Mapping[str, tuple[str, str]]) -> str:
    """Returns the text of `vla --help`; `verbs` maps each verb to its summary and one example."""
    lines = ["vla: vision-language-action policies, from demonstrations to an arm that moves", ""]
    lines += ["Usage: vla VERB [name=VALUE ...]", "", "Verbs:"]
    lines += _columns([(verb, summary) for verb, (summary, _) in verbs.items()])
    lines += ["", "Examples:", *(f"  {example}" for _, example in verbs.values() if example), ""]
    lines += [
        "Every verb:",
        *_columns([("--help", "every setting with type, default and meaning"), *COMMON_OPTIONS]),
    ]
    return "\n".join([*lines, *_columns([("--version", "print the version")])])


def _own_comments(config_class: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(config_class))
    except (OSError, TypeError):  # no source at hand, e.g. a class made at a prompt
        return {}
    texts: dict[int, str] = {}
    alone: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            texts[token.start[0]] = token.string.lstrip("#: ").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    definition = typing.cast(ast.ClassDef, ast.parse(source).body[0])
    comments: dict[str, str] = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comments[node.target.id] = _comment_of(node, texts, alone)
    return comments


def _comment_of(node: ast.AnnAssign, texts: dict[int, str], alone: set[int]) -> str:
    for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
        if line in texts:
            return texts[line]
    above: list[str] = []
    line = node.lineno - 1
    while line in alone:
        above.insert(0, texts[line])
        line -= 1
    return " ".join(above)


def _nested_dataclass(hint: Any) -> type | None:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        hint = parts[0] if len(parts) == 1 else None
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _value_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(_value_text(item) for item in value) + "]"
    return "required" if value == REQUIRED else repr(value) if value == "" else str(value)


def _path_hint(group: str) -> str:
    return "; or the path of a checkpoint directory" if group == "policy" else ""


def _setting(name: str, kind: str, default: str, comment: str) -> list[str]:
    head = f"{' ' * INDENT}{name}  {kind}  {default if default == 'required' else '= ' + default}"
    width = max(60, shutil.get_terminal_size((100, 24)).columns - 8)
    return [head, *(f"{' ' * 6}{line}" for line in textwrap.wrap(comment, width))]


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    left = max(len(name) for name, _ in rows) + 2
    width = max(40, shutil.get_terminal_size((100, 24)).columns - left - INDENT)
    lines: list[str] = []
    for name, text in rows:
        first, *rest = textwrap.wrap(text, width) or [""]
        lines.append(f"{' ' * INDENT}{name:<{left}}{first}")
        lines += [f"{' ' * (left + INDENT)}{line}" for line in rest]
    return lines
