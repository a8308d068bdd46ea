"""Puts a trained policy into the package: fp16 weights, the contract, and a manifest that says how it was made.

    python scripts/ship_policy.py WORK_FOLDER DESTINATION

WORK_FOLDER is what scripts/reproduce_tiny.sh fills: collect_TASK/ train_1/ train_2/ ... eval_TASK_VARIANT/; the last
part of training is shipped. Lines of a file notes.txt there, saying where the run departed from the recipe, go into
the manifest.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla.checkpoints import native
from vla.training.track import read_jsonl

LARGEST_BYTES = 16 << 20
_TOLD_SETTINGS = ("experiment=", "training.", "data.weights", "data.unknown_words")


def main(work: Path, destination: Path) -> None:
    """Writes the checkpoint and MANIFEST.json; refuses a checkpoint that is too large to ship."""
    loaded = native.load(_parts(work)[-1])
    training = {k: v for k, v in loaded.contract.training.items() if k != "datasets"}
    contract = replace(loaded.contract, training=training)
    native.save(
        destination,
        loaded.model,
        contract,
        loaded.tokenizer,
        weights_dtype=native.WeightsDtype.FP16,
    )
    manifest = describe(work)
    (destination / "MANIFEST.json").write_text(
        json.dumps(manifest, indent=2) + "\n", encoding="utf-8"
    )
    size = sum(path.stat().st_size for path in destination.iterdir())
    print(f"{destination}: {size / 1e6:.1f} MB")
    if size > LARGEST_BYTES:
        sys.exit(
            f"{destination} holds {size} bytes; at most {LARGEST_BYTES} are shipped: train a smaller model"
        )


def describe(work: Path) -> dict[str, Any]:
    """Returns recipe, seeds, steps, hardware, time, training curve and evaluations."""
    return {
        "recipe": "scripts/reproduce_tiny.sh",
        "notes": _lines(work / "notes.txt"),
        "data": {
            folder.name.removeprefix("collect_"): {
                key: summary[key] for key in ("episodes", "frames", "rejected") if key in summary
            }
            for folder in sorted(work.glob("collect_*"))
            for summary in [_summary(folder)]
        },
        "data_seeds": "below 1000000; from there on all are held out",
        "training": [_part(folder) for folder in _parts(work)],
        "hardware": {"processor": _processor(), "machine": platform.machine()},
        "evaluations": {
            folder.name: {
                key: summary[key] for key in ("success_rate", "low", "high", "episodes", "failures")
            }
            | {"first_seed": min(summary["seeds"]), "last_seed": max(summary["seeds"])}
            for folder in sorted(work.glob("eval*"))
            for summary in [_summary(folder)]
        },
    }


def _parts(work: Path) -> list[Path]:
    """Returns the folders of the parts of training, in their order."""
    parts = sorted(
        work.glob("train_[0-9]*"), key=lambda folder: int(folder.name.rpartition("_")[2])
    )
    if not parts:
        sys.exit(f"{work} has no train_1; run scripts/reproduce_tiny.sh")
    return parts


def _part(folder: Path) -> dict[str, Any]:
    """Returns settings, effort and validation curve of one part of training."""
    train = _summary(folder)
    curve = [
        {
            "step": row["step"],
            "loss": row["validation/loss"],
            "token_accuracy_within_2": row["validation/token_accuracy_within_2"],
            "action_l1_dx_m": row["validation/action_l1/dx"],
        }
        for row in read_jsonl(folder / "metrics.jsonl")
        if "validation/loss" in row
    ]
    told = {key: train[key] for key in ("step", "samples", "seconds", "cpu_seconds", "metrics")}
    settings = [o for o in train["overrides"] if o.startswith(_TOLD_SETTINGS)]
    return {"name": folder.name, "settings": settings, **told, "validation_curve": curve}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
