"""`vla describe`: what a checkpoint or a backbone is made of, what it expects to see, and what its actions mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.cli.build import find_checkpoint

if TYPE_CHECKING:
    from vla.checkpoints.native import LoadedCheckpoint
    from vla.tokenizers.fast import FastTokenizer


@dataclass(kw_only=True)
class DescribeConfig:
    """What to describe."""

    checkpoint: str = "tiny"  # a checkpoint directory, or the name of one shipped in the package
    backbone: str = (
        ""  # instead: a named shape without weights, such as openvla_7b, qwen2_vl_2b or gemma4_tiny
    )
    trace: bool = (
        False  # follow one observation through the model, with the shape of everything on its way
    )


def run(cfg: DescribeConfig, directory: Path) -> dict[str, Any]:
    """Prints the description, and returns it for summary.json."""
    from vla.cli.describe import backbones, trace

    named = {"backbone": cfg.backbone} if cfg.backbone else {"checkpoint": cfg.checkpoint}
    if cfg.trace:
        steps = trace.trace(cfg.checkpoint, cfg.backbone)
        print(trace.text(steps))
        return {**named, "trace": [step.to_dict() for step in steps]}
    if cfg.backbone:
        described = backbones.describe_backbone(cfg.backbone)
        print(_text(cfg.backbone, described))
        return {**named, **described}
    from vla.checkpoints import native

    loaded = native.load(find_checkpoint(cfg.checkpoint))
    contract = loaded.contract
    acting = backbones.describe_acting(
        loaded.model, len(contract.embodiment.camera_names), contract.image_size
    )
    described = {**acting, **describe_contract(loaded)}
    print(_text(str(loaded.directory), described))
    return {"checkpoint": str(loaded.directory), **described}


def describe_contract(loaded: LoadedCheckpoint) -> dict[str, Any]:
    """Returns what the checkpoint must be given, what its actions mean, and how it was trained."""
    contract, body = loaded.contract, loaded.contract.embodiment
    spec, statistics = body.action_spec, contract.action_statistics
    state = zip(body.state_spec.names, body.state_spec.units, strict=True)
    rows = zip(
        spec.names, spec.units, spec.low, spec.high, statistics.q01, statistics.q99, strict=True
    )
    return {
        "embodiment": body.name,
        "cameras": list(body.camera_names),
        "state": [f"{name} [{unit}]" for name, unit in state],
        "actions": [
            f"{name} [{unit}]: limits {low:g} to {high:g}, 1 % to 99 % of the data {q01:.4g} to {q99:.4g}"
            for name, unit, low, high, q01, q99 in rows
        ],
        "frame": spec.frame,
        "rate_hz": contract.rate_hz,
        "prompt": contract.prompt.value,
        "max_text_tokens": contract.max_text_tokens,
        "vocabulary": loaded.tokenizer.get_vocab_size(),
        **({} if contract.fast is None else {"fast": _described_fast(contract.fast)}),
        "training": contract.training,
    }


def _described_fast(fast: FastTokenizer) -> str:
    return (
        f"{fast.num_tokens:,} tokens, at most {fast.max_tokens} a chunk; coefficients in steps of {1 / fast.scale:g}, "
        f"so actions in [-1, 1] are off by {fast.error_bound:g} at most, root mean square over a chunk"
    )


def _text(title: str, described: dict[str, Any]) -> str:
    lines = [title, f"  parameters  {described['parameters']:,}"]
    for name, count in described["parts"].items():
        lines.append(f"    {name:<16}{count:>16,}  {100 * count / described['parameters']:5.1f} %")
    for name, value in described.items():
        if name not in ("parameters", "parts"):
            lines += _entry(name.replace("_", " "), value)
    return "\n".join(lines)


def _entry(label: str, value: Any) -> list[str]:
    match value:
        case dict():
            inner = (f"    {_shown(key)}: {_shown(item)}" for key, item in value.items())
            return [f"  {label}", *inner]
        case [dict(), *_]:
            return [f"  {label}", *_table(value)]
        case [str(), *_]:
            return [f"  {label}", *(f"    {item}" for item in value)]
    return [f"  {label}: {value!r}" if "\n" in str(value) else f"  {label}: {_shown(value)}"]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of equal keys, with the keys on top."""
    cells = [[str(name).replace("_", " ") for name in rows[0]]]
    cells += [[_shown(value) for value in row.values()] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "    "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _shown(value: Any) -> str:
    match value:
        case bool() | None | str():
            return str(value).replace("_", " ")
        case int() if value >= 10**9:
            return f"{value / 1e9:,.1f} G"
        case int():
            return f"{value:,}"
        case [int(), int()]:
            return f"{value[0]} x {value[1]}"
        case dict():
            return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    return str(value)
