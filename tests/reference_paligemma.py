"""A small PaliGemma beside its reference, the recorded PaliGemma 2, and prompts for them, for the parity tests."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from vla.checkpoints.maps import paligemma
from vla.models.backbones.paligemma import PaliGemma
from vla.models.sequence import Prefix, read

ATOL = 1e-5
BOS, NEWLINE, EOS, IMAGE = 2, 9, 1, 95
NUM_NEW, SIZE = 6, 28  # pixels; 2 x 2 patches, 4 image tokens
SMALL: dict[str, Any] = {
    "model_type": "paligemma",
    "image_token_index": IMAGE,
    "projection_dim": 32,
    "hidden_size": 32,
    "pad_token_id": 0,
    "text_config": {
        "model_type": "gemma",
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": EOS,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 14,
        "vision_use_head": False,
    },
}
GOLDEN = Path(__file__).parent / "parity" / "goldens" / "paligemma2"


@dataclass
class Pair:
    """The reference, and ours with its weights."""

    theirs: Any
    ours: PaliGemma


def first_paligemma() -> Pair:
    """Returns a small PaliGemma 1; weights hide nothing: norms and biases are random too."""
    torch.manual_seed(0)
    theirs = transformers.PaliGemmaForConditionalGeneration(
        transformers.PaliGemmaConfig(**copy.deepcopy(SMALL))
    ).eval()
    for name, tensor in theirs.state_dict().items():
        noise = torch.randn_like(tensor)
        scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.2
        tensor.copy_(tensor + 0.3 * noise if "norm" in name else scale * noise)
    ours = PaliGemma(paligemma.model_config(SMALL)).eval()
    ours.load_state_dict(paligemma.key_map(ours.config).convert(theirs.state_dict(), ours))
    return Pair(theirs, ours)


def second_paligemma() -> PaliGemma:
    """Returns the recorded PaliGemma 2."""
    model = PaliGemma(paligemma.model_config(json.loads((GOLDEN / "config.json").read_text())))
    weights = load_file(GOLDEN / "weights.safetensors")
    model.load_state_dict(paligemma.key_map(model.config).convert(weights, model))
    return model.eval()


@dataclass
class Prompts:
    """Rows of pictures, words and answers, as either implementation takes them."""

    ids: Tensor
    valid: Tensor
    is_suffix: Tensor
    pixels: Tensor | None

    def embedded(self, model: PaliGemma) -> Prefix:
        return model.embed_normalised(self.ids, self.valid, self.pixels, self.is_suffix)

    def logits(self, model: PaliGemma) -> Tensor:
        return model.decoder.logits(read(model.decoder, self.embedded(model)))

    def theirs(self) -> dict[str, Tensor | None]:
        return {
            "input_ids": self.ids,
            "attention_mask": self.valid.long(),
            "token_type_ids": self.is_suffix.long(),
            "pixel_values": self.pixels,
        }


def prompts_of(rows: list[tuple[int, list[int], list[int]]], side: str = "right") -> Prompts:
    """Returns rows; each is given as so many pictures, the words of the prefix and those of the answer."""
    written = [
        ([IMAGE] * 4 * pictures + [BOS, *words, NEWLINE], [*answer, EOS] if answer else [])
        for pictures, words, answer in rows
    ]
    length = max(len(prefix) + len(suffix) for prefix, suffix in written)
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    valid, is_suffix = torch.zeros_like(ids).bool(), torch.zeros_like(ids).bool()
    for i, (prefix, suffix) in enumerate(written):
        end = len(prefix) + len(suffix)
        first = length - end if side == "left" else 0
        ids[i, first : first + end] = torch.tensor(prefix + suffix)
        valid[i, first : first + end] = True
        is_suffix[i, first + len(prefix) : first + end] = True
    num_pictures = sum(pictures for pictures, _, _ in rows)
    return Prompts(ids, valid, is_suffix, random_pixels(num_pictures) if num_pictures else None)


def random_pixels(num_pictures: int, seed: int = 0) -> Tensor:
    """Returns pictures in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_pictures, 3, SIZE, SIZE, generator=generator) * 2 - 1


CASES: dict[str, tuple[list[tuple[int, list[int], list[int]]], str]] = {
    "one picture": ([(1, [11, 12, 13], [21, 22])], "right"),
    "two pictures": ([(2, [11, 12, 13], [21, 22])], "right"),
    "words alone": ([(0, [11, 12, 13], [21, 22])], "right"),
    "no answer yet": ([(1, [11, 12, 13], [])], "right"),
    "two rows padded right": ([(1, [11], [21, 22, 23]), (1, [12] * 5, [24])], "right"),
    "two rows padded left": ([(1, [11], [21, 22, 23]), (1, [12] * 5, [24])], "left"),
    "one row has no picture": ([(0, [11], [21]), (2, [12, 13], [24, 25])], "left"),
}
