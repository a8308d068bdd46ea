"""A small Gemma 4 of each form beside its reference, and prompts of words and pictures, for the parity tests."""

import copy
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from vla.checkpoints.maps import gemma4
from vla.models.backbones.gemma4 import Gemma4
from vla.models.backbones.gemma4_config import PictureAttention
from vla.models.sequence import Prefix

ATOL = 1e-5
BOS, START, END, IMAGE = 2, 91, 92, 95
PICTURE = object()
SMALL: dict[str, Any] = {
    "model_type": "gemma4",
    "boi_token_id": START, "eoi_token_id": END, "image_token_id": IMAGE, "video_token_id": 94,
    "audio_token_id": 93, "boa_token_id": 90, "eoa_token_index": 89,
    "text_config": {
        "model_type": "gemma4_text",
        "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 7,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 32,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2 + ["full_attention"],
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 96, "num_kv_shared_layers": 4,
        "use_double_wide_mlp": True, "final_logit_softcapping": 3.0, "max_position_embeddings": 128,
    },
    "vision_config": {
        "model_type": "gemma4_vision",
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "patch_size": 2, "pooling_kernel_size": 2,
        "position_embedding_size": 16, "use_clipped_linears": True,
    },
}  # fmt: skip
RECORDED = Path(__file__).parent / "parity" / "goldens"
BESIDE_THE_REPOSITORY = Path(__file__).parents[1].parent / "shared" / "goldens"
SHARED = Path(os.environ.get("VLA_GOLDENS", BESIDE_THE_REPOSITORY)) / "gemma4_unified"


@dataclass
class Pair:
    """The reference, and ours with its weights."""

    theirs: Any
    ours: Gemma4


def e2b_like() -> Pair:
    """Returns a model as E2B: per-layer embeddings, shared keys, wide feed-forwards, clipped linears.

    Weights hide nothing, norms, scalars and bounds are random too. Queries are short, since Gemma 4 does not scale
    scores and an almost hard softmax magnifies rounding; and so do branches as large as the stream.
    """
    torch.manual_seed(0)
    theirs = transformers.Gemma4ForConditionalGeneration(
        transformers.Gemma4Config(**copy.deepcopy(SMALL))
    ).eval()
    for name, tensor in theirs.state_dict().items():
        noise = torch.randn_like(tensor)
        scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.2
        if name.endswith(("_min", "_max")):
            bound = 1.0 + 0.2 * noise.abs()
            tensor.copy_(-bound if name.endswith("_min") else bound)
        elif "norm" in name or "layer_scalar" in name:
            tensor.copy_(tensor + 0.1 * noise)
        else:
            tensor.copy_(scale * noise)
        if "q_norm" in name or "post_" in name:
            tensor *= 0.3
    ours = Gemma4(gemma4.model_config(SMALL)).eval()
    ours.load_state_dict(gemma4.key_map(ours.config).convert(theirs.state_dict(), ours))
    return Pair(theirs, ours)


@dataclass
class Prompts:
    """Rows of words and pictures, as either implementation takes them."""

    ids: Tensor
    valid: Tensor
    patches: Tensor | None = None
    places: Tensor | None = None

    def embedded(self, model: Gemma4) -> Prefix:
        return model.embed(self.ids, self.valid, self.patches, self.places)

    def logits(self, model: Gemma4) -> Tensor:
        return model(self.ids, self.valid, self.patches, self.places)

    def theirs(self) -> dict[str, Tensor | None]:
        return {
            "input_ids": self.ids,
            "attention_mask": self.valid.long(),
            "mm_token_type_ids": (self.ids == IMAGE).long(),
            "pixel_values": self.patches,
            "image_position_ids": self.places,
        }


def prompts_of(rows: list[list[Any]], grids: list[tuple[int, int]], side: str = "right") -> Prompts:
    """Returns rows of ids, with a picture for each PICTURE; grids are rows and columns of its tokens."""
    counts = iter(math.prod(grid) for grid in grids)
    written = [
        [
            token
            for item in [BOS, *row]
            for token in ([START, *[IMAGE] * next(counts), END] if item is PICTURE else [item])
        ]
        for row in rows
    ]
    length = max(map(len, written))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    valid = torch.zeros_like(ids).bool()
    for i, tokens in enumerate(written):
        first = length - len(tokens) if side == "left" else 0
        ids[i, first : first + len(tokens)] = torch.tensor(tokens)
        valid[i, first : first + len(tokens)] = True
    if not grids:
        return Prompts(ids, valid)
    return Prompts(ids, valid, *random_pictures([(2 * r, 2 * c) for r, c in grids], 12))


def random_pictures(grids: list[tuple[int, int]], num_values: int) -> tuple[Tensor, Tensor]:
    """Returns patches in [0, 1] and their places; every row is padded to the longest, and by four more."""
    num_patches = max(math.prod(grid) for grid in grids) + 4
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(len(grids), num_patches, num_values, generator=generator)
    places = torch.full((len(grids), num_patches, 2), -1)
    for place, (rows, columns) in zip(places, grids, strict=True):
        raster = torch.arange(rows * columns)
        place[: rows * columns] = torch.stack([raster % columns, raster // columns], dim=1)
    return patches.masked_fill(places[..., :1] < 0, 0.0), places


def num_values(model: Gemma4) -> int:
    """Returns the numbers of a patch."""
    return 3 * model.config.pixels_per_patch**2


CASES: dict[str, tuple[list[list[Any]], list[tuple[int, int]], str]] = {
    "one picture": ([[7, PICTURE, 8, 9]], [(2, 3)], "right"),
    "two pictures of different shape": ([[PICTURE, 7, 8, PICTURE, 9]], [(1, 4), (3, 2)], "right"),
    "words alone": ([[7, 8, 9, 10, 11, 12, 13]], [], "right"),
    "two rows padded right": ([[7, PICTURE, 8], [PICTURE, *range(10, 25)]], [(2, 3), (1, 2)], "right"),
    "two rows padded left": ([[7, PICTURE, 8], [PICTURE, *range(10, 25)]], [(2, 3), (1, 2)], "left"),
    "a row without a picture": ([[7, 8, 9], [PICTURE, 7, PICTURE, 8]], [(2, 3), (1, 2)], "left"),
}  # fmt: skip


@dataclass
class Recording:
    """Ours with the recorded weights, what it was given, and what came out."""

    model: Gemma4
    prompts: Prompts
    tensors: dict[str, Tensor]

    def expected(self, name: str) -> Tensor:
        return self.tensors[f"output.{name}"]


def recording_in(folder: Path) -> Recording:
    """Returns the recording in a folder that scripts/make_golden.py, or another, made."""
    values = json.loads((folder / "config.json").read_text())
    model = Gemma4(gemma4.model_config(values.get("config", values))).eval()
    weights = load_file(folder / "weights.safetensors")
    model.load_state_dict(gemma4.key_map(model.config).convert(weights, model))
    tensors = load_file(folder / "io.safetensors")
    names = ("input_ids", "attention_mask", "pixel_values", "image_position_ids")
    ids, valid, patches, places = (tensors[f"input.{name}"] for name in names)
    return Recording(model, Prompts(ids, valid.bool(), patches, places), tensors)


def as_31b() -> Recording:
    """Returns a model as the 31B: an encoder, and pictures that see themselves in windowed layers."""
    return recording_in(RECORDED / "gemma4_31b_like")


def woven() -> Recording:
    """Returns a model without an encoder, as the 12B."""
    return recording_in(RECORDED / "gemma4_unified")


def woven_in_5_23() -> Recording:
    """Returns the same, with the mask of forward and generate in transformers 5.23.0."""
    recording = woven()
    recording.model.config.picture_attention = PictureAttention.WHOLE
    return recording


def _e2b_form() -> tuple[Gemma4, Prompts]:
    return e2b_like().ours, prompts_of(*CASES["a row without a picture"])


def _recorded_form(make: Callable[[], Recording]) -> tuple[Gemma4, Prompts]:
    recording = make()
    return recording.model, recording.prompts


FORMS: dict[str, Callable[[], tuple[Gemma4, Prompts]]] = {  # a model of each, and prompts for it
    "as E2B": _e2b_form,
    "as 31B": lambda: _recorded_form(as_31b),
    "woven": lambda: _recorded_form(woven),
}
