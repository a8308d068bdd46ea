"""`vla describe`: what a checkpoint or a backbone is made of, what it expects to see, and what its actions mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.cli.build import find_checkpoint
from vla.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from vla.checkpoints.native import LoadedCheckpoint
    from vla.models.backbones.prismatic import Prismatic


@dataclass(kw_only=True)
class DescribeConfig:
    """What to describe."""

    checkpoint: str = "tiny"  # a checkpoint directory, or the name of one shipped in the package
    backbone: str = ""  # instead of a checkpoint: the shape of tiny or openvla_7b, without weights


def run(cfg: DescribeConfig, directory: Path) -> dict[str, Any]:
    """Prints the description, and returns it for summary.json."""
    from vla.checkpoints import native

    if cfg.backbone:
        described = describe_model(_shape(cfg.backbone))
        print(_text(cfg.backbone, described))
        return {"backbone": cfg.backbone, **described}
    loaded = native.load(find_checkpoint(cfg.checkpoint))
    described = {**describe_model(loaded.model), **describe_contract(loaded)}
    print(_text(str(loaded.directory), described))
    return {"checkpoint": str(loaded.directory), **described}


def describe_model(model: Prismatic) -> dict[str, Any]:
    """Returns parameters by part and tokens by kind."""
    config = model.config
    parts = {
        name: sum(weight.numel() for weight in part.parameters())
        for name, part in model.named_children()
    }
    total = sum(weight.numel() for weight in model.parameters())
    parts |= {"other": total - sum(parts.values())}
    actions = config.chunk_length * config.action_width
    return {
        "parameters": total,
        "parts": {name: count for name, count in parts.items() if count},
        "tokens": {
            "image_tokens_per_view": model.vision.num_patches,
            "views": config.num_views,
            "image_tokens": model.vision.num_patches * config.num_views,
            "proprioception_tokens": int(config.state_width > 0),
            "action_numbers_per_chunk": actions,
        },
        "shapes": {
            "image": [config.num_views, 3, config.image_size, config.image_size],
            "state": [config.state_width],
            "action_chunk": [config.chunk_length, config.action_width],
        },
        "decoder": f"{config.decoder.depth} blocks of width {config.decoder.width}",
        "action_decoding": config.action_decoding.value,
        "action_layout": config.action_layout.value,
    }


def describe_contract(loaded: LoadedCheckpoint) -> dict[str, Any]:
    """Returns what the checkpoint must be given, what its actions mean, and how it was trained."""
    contract, body = loaded.contract, loaded.contract.embodiment
    spec, statistics = body.action_spec, contract.action_statistics
    rows = zip(
        spec.names, spec.units, spec.low, spec.high, statistics.q01, statistics.q99, strict=True
    )
    return {
        "embodiment": body.name,
        "cameras": list(body.camera_names),
        "state": [f"{n} [{u}]" for n, u in zip(*_names_and_units(body.state_spec), strict=True)],
        "actions": [
            f"{name} [{unit}]: limits {low:g} to {high:g}, 1 % to 99 % of the data {q01:.4g} to {q99:.4g}"
            for name, unit, low, high, q01, q99 in rows
        ],
        "frame": spec.frame,
        "rate_hz": contract.rate_hz,
        "prompt": contract.prompt.value,
        "max_text_tokens": contract.max_text_tokens,
        "vocabulary": loaded.tokenizer.get_vocab_size(),
        "training": contract.training,
    }


def _shape(name: str) -> Prismatic:
    """Returns a model without memory for its weights."""
    import torch

    from vla.models.backbones.prismatic import Prismatic
    from vla.models.backbones.prismatic_config import openvla_7b, tiny

    shapes = {"tiny": lambda: tiny(text_vocab_size=512), "openvla_7b": openvla_7b}
    if name not in shapes:
        raise ConfigError(unknown_name("backbone", name, shapes))
    with torch.device("meta"):
        return Prismatic(shapes[name]())


def _names_and_units(spec: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return spec.names, spec.units


def _text(title: str, described: dict[str, Any]) -> str:
    lines = [title, f"  parameters  {described['parameters']:,}"]
    for name, count in described["parts"].items():
        lines.append(f"    {name:<16}{count:>16,}  {100 * count / described['parameters']:5.1f} %")
    for name, value in described.items():
        if name in ("parameters", "parts"):
            continue
        label = name.replace("_", " ")
        match value:
            case dict():
                lines.append(f"  {label}")
                lines += [f"    {key.replace('_', ' ')}: {item}" for key, item in value.items()]
            case [str(), *_]:
                lines.append(f"  {label}")
                lines += [f"    {item}" for item in value]
            case _:
                lines.append(
                    f"  {label}: {value!r}" if "\n" in str(value) else f"  {label}: {value}"
                )
    return "\n".join(lines)
