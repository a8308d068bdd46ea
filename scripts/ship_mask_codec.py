"""Puts a trained mask codec into the package: fp16 weights, and a manifest of how it was made and how good it is.

    python scripts/ship_mask_codec.py RUN DESTINATION [SCENES...]

RUN is a folder of `vla pretrain mask_codec`. SCENES are folders of labelled scenes; those from seed 1,000,000 on are
measured with, beside drawn masks. Lines of a file notes.txt in RUN go into the manifest.
"""

from __future__ import annotations

import json
import platform
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vla.checkpoints.folder import WeightsDtype, find, read_config
from vla.checkpoints.mask_codec import load_mask_codec, save_mask_codec
from vla.data.mask_batches import HELD_OUT_SEED, LabelledMask, drawn_masks, gather_masks
from vla.data.scenes import open_scenes
from vla.evaluation.estimates import mean_by_picture
from vla.models.mask_codec import MaskCodec
from vla.tokenizers.loc_seg import NUM_CODEWORDS
from vla.training.mask_codec import reconstruction_ious, used_codewords
from vla.training.track import read_jsonl

LARGEST_BYTES = 1_500_000
DRAWN_SEED = HELD_OUT_SEED + 1  # validation during training used the one before
NUM_DRAWN, MOST_SCENE_MASKS = 1000, 4000


def main(run: Path, destination: Path, scenes: Sequence[Path]) -> None:
    """Writes the codec and MANIFEST.json; refuses one that is too large to ship."""
    save_mask_codec(destination, load_mask_codec(run), weights_dtype=WeightsDtype.FP16)
    codec = load_mask_codec(destination)  # measured as shipped
    manifest = describe(run, scenes) | {"reconstruction_iou": measure(codec, scenes)}
    (destination / "MANIFEST.json").write_text(
        json.dumps(manifest, indent=2) + "\n", encoding="utf-8"
    )
    print(json.dumps(manifest["reconstruction_iou"], indent=2))
    size = sum(path.stat().st_size for path in destination.iterdir())
    print(f"{destination}: {size / 1e6:.2f} MB")
    if size > LARGEST_BYTES:
        sys.exit(f"{destination} holds {size} bytes; at most {LARGEST_BYTES} are shipped")


def measure(codec: MaskCodec, scenes: Sequence[Path]) -> dict[str, Any]:
    """Returns mean IoU after crop, 16 codewords and paste, with bootstrap intervals over pictures, by kind of mask."""
    sources: dict[str, list[LabelledMask]] = {"drawn": drawn_masks(DRAWN_SEED, NUM_DRAWN)}
    for root in scenes:
        _, held_out = gather_masks(open_scenes(root, cache=False), MOST_SCENE_MASKS)
        if held_out:
            sources[root.name] = [item for item in held_out if item.is_clear]
            sources[f"{root.name}, barely visible"] = [m for m in held_out if not m.is_clear]
    return {name: _measured(codec, masks) for name, masks in sources.items() if masks}


def describe(run: Path, scenes: Sequence[Path]) -> dict[str, Any]:
    """Returns recipe, data, seeds, steps, time, hardware and training curve."""
    training = read_config(find(run))["training"]
    notes = run / "notes.txt"
    return {
        "recipe": "scripts/reproduce_scenes.sh",
        "notes": notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else [],
        "data": {"scenes": [root.name for root in scenes], "drawn": "vla.data.procedural_masks"},
        "data_seeds": f"trained below {HELD_OUT_SEED}, measured from there on",
        "training": {
            key: training[key] for key in ("step", "samples", "seconds", "cpu_seconds", "metrics")
        },
        "hardware": {"machine": platform.machine()},
        "validation_curve": [
            {"step": row["step"]}
            | {key.removeprefix("validation/"): row[key] for key in row if "iou" in key}
            for row in read_jsonl(run / "metrics.jsonl")
            if "validation/iou_drawn" in row
        ],
    }


def _measured(codec: MaskCodec, masks: Sequence[LabelledMask]) -> dict[str, Any]:
    ious = reconstruction_ious(codec, masks)

    def by(kind: Callable[[LabelledMask], str]) -> dict[str, Any]:
        groups: dict[str, tuple[list[float], list[int]]] = defaultdict(lambda: ([], []))
        for item, iou in zip(masks, ious, strict=True):
            values, pictures = groups[kind(item)]
            values.append(iou)
            pictures.append(item.picture)
        return {key: mean_by_picture(*groups[key]).to_dict() for key in sorted(groups)}

    return {
        "all": mean_by_picture(ious, [item.picture for item in masks]).to_dict(),
        "by_shape": by(lambda item: item.shape),
        "by_pixels": by(_size_class),
        "codewords_used": f"{used_codewords(codec, masks)} of {NUM_CODEWORDS}",
    }


def _size_class(item: LabelledMask) -> str:
    for low, high in ((0, 16), (16, 64), (64, 256), (256, 1024), (1024, 4096)):
        if item.num_pixels < high:
            return f"{low:04d} to {high - 1:04d} px"
    return "4096 px and more"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(root) for root in sys.argv[3:]])
