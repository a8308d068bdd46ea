"""Puts a trained model that answers into the package: fp16 weights, and a manifest of how it was made, how good it is.

    python scripts/ship_vlm.py RUN DESTINATION SCENES...

RUN is a folder of `vla pretrain multimodal`. SCENES are folders of labelled scenes that the run never read; pictures
with a scene seed from 1,000,000 on are measured with, as `vla examine` does. Lines of a file notes.txt in RUN go into
the manifest, and so does what is known of the tower that RUN started from.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from vla.checkpoints.answering import KIND, load_answerable
from vla.checkpoints.folder import WeightsDtype, find, read_config, save_folder
from vla.data.scene_pictures import HELD_OUT_SEED
from vla.data.scene_rows import SceneRow
from vla.data.scenes import open_scenes
from vla.evaluation.answering import measure_answers
from vla.models.backbones.families import family_of
from vla.models.config_dict import config_to_dict
from vla.training.track import read_jsonl

LARGEST_BYTES = 16_000_000
_KEPT = ("stage", "step", "samples", "seconds", "cpu_seconds", "metrics")


def main(run: Path, destination: Path, scenes: Sequence[Path]) -> None:
    """Writes the model and MANIFEST.json; refuses one that is too large to ship."""
    rows = _held_out(scenes)
    student = load_answerable(run)
    config = student.backbone.config
    save_folder(
        destination,
        {
            "kind": KIND,
            "model": {"family": family_of(config).value, "config": config_to_dict(config)},
            **student.described(),
        },
        student.tensors(),
        tokenizer=student.tokenizer,
        weights_dtype=WeightsDtype.FP16,
    )
    size = sum(path.stat().st_size for path in destination.iterdir())
    print(f"{destination}: {size / 1e6:.2f} MB")
    if size > LARGEST_BYTES:
        sys.exit(f"{destination} holds {size} bytes; at most {LARGEST_BYTES} are shipped")
    torch.set_num_threads(1)
    shipped = load_answerable(destination)  # measured as shipped
    figures = measure_answers(shipped, rows).to_dict()
    print(json.dumps(figures, indent=2))
    manifest = describe(run, scenes, rows) | {"held_out": figures}
    text = json.dumps(manifest, indent=2) + "\n"
    (destination / "MANIFEST.json").write_text(text, encoding="utf-8")


def describe(run: Path, scenes: Sequence[Path], rows: Sequence[SceneRow]) -> dict[str, Any]:
    """Returns recipe, data, seeds, steps, time, hardware and training curve."""
    training = read_config(find(run))["training"]
    towers = [Path(path) for path in _started_from(run)]
    notes = run / "notes.txt"
    seeds = [int(row.scene_seed) for row in rows]
    return {
        "recipe": "scripts/reproduce_scenes.sh",
        "notes": notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else [],
        "data": {
            "trained_on": [Path(root).name for root in training["scenes"]],
            "measured_on": [root.name for root in scenes],
        },
        "data_seeds": f"trained below {HELD_OUT_SEED}, measured from {min(seeds)} to {max(seeds)}",
        "tower": [
            {key: read_config(find(path))["training"][key] for key in _KEPT} for path in towers
        ],
        "training": {key: training[key] for key in _KEPT},
        "hardware": {"processor": _processor(), "machine": platform.machine()},
        "validation_curve": [
            {"step": row["step"]}
            | {
                name: row[f"validation/{name}"]
                for name in ("loss", "vqa", "ap50", "mask_iou")
                if f"validation/{name}" in row
            }
            for row in read_jsonl(run / "metrics.jsonl")
            if "validation/loss" in row
        ],
    }


def _held_out(scenes: Sequence[Path]) -> list[SceneRow]:
    rows = [
        row
        for root in scenes
        for row in open_scenes(root, cache=False)
        if row.scene_seed >= HELD_OUT_SEED and row.kind == "still"
    ]
    if not rows:
        sys.exit(f"no picture of {', '.join(map(str, scenes))} has a seed from {HELD_OUT_SEED} on")
    return rows


def _started_from(run: Path) -> list[str]:
    """Returns the paths of the towers, as the run's own record has them."""
    return list(OmegaConf.load(run / "config.yaml").multimodal.vision_from)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(root) for root in sys.argv[3:]])
