"""Records outputs of reference implementations that our own environment cannot run: make_golden.py NAME...

Run it with a Python of its own that has the reference, for example

    python -m venv reference && reference/bin/pip install torch==2.11.0 torchvision==0.26.0 transformers==5.23.0
    reference/bin/python scripts/make_golden.py gemma4_unified_pictures

Each recording is a function here and a folder in tests/parity/goldens: io.safetensors (input.*, output.*), and
where the reference has weights also weights.safetensors and config.json. Keep a folder below 600 KB.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_PALIGEMMA: dict[str, Any] = {"projection_dim": 32, "hidden_size": 32, "image_token_index": 319}
_GEMMA4_IDS: dict[str, Any] = {
    "boi_token_id": 303, "eoi_token_id": 304, "image_token_id": 300, "video_token_id": 301, "audio_token_id": 302,
    "boa_token_id": 305, "eoa_token_index": 306,
}  # fmt: skip
GOLDENS = Path(__file__).parents[1] / "tests" / "parity" / "goldens"


def gemma4_unified_pictures() -> None:
    """Patches of the encoder-free Gemma 4, transformers 5.23.0: some values of every patch, and exact sums of all."""
    from transformers.models.gemma4_unified.image_processing_gemma4_unified import (  # type: ignore[import-not-found]
        Gemma4UnifiedImageProcessor,
    )

    generator = torch.Generator().manual_seed(0)
    sizes = [
        (37, 51),
        (150, 40),
        (2, 300),
    ]  # height, width; the last is a strip of one row of tokens
    pictures = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]
    output = Gemma4UnifiedImageProcessor(max_soft_tokens=70)(pictures, return_tensors="pt")
    pixels = output["pixel_values"]
    chosen = torch.arange(0, pixels.shape[-1], 37)  # coprime to 3 channels and 48 columns
    tensors = {f"input.{index}": picture for index, picture in enumerate(pictures)}
    tensors |= {
        "chosen": chosen,
        "output.pixel_values": pixels[:, :, chosen].contiguous(),
        "output.sums": (pixels * 255).round().long().sum(dim=-1),
        "output.positions": output["image_position_ids"],
        "output.num_tokens": torch.as_tensor(output["num_soft_tokens_per_image"]),
    }
    _save("gemma4_unified_pictures", tensors)


def paligemma2() -> None:
    """PaliGemma 2, transformers 5.23.0: earlier versions leave the last soft-cap out.

    Two pictures in the first prompt, one in the second, which is padded on the left; the window is shorter than the
    prefix.
    """
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    text: dict[str, Any] = {
        "model_type": "gemma2", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 5,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_use_head": False,
    }  # fmt: skip
    parts: dict[str, Any] = {"text_config": text, "vision_config": vision}
    config = PaliGemmaConfig(**parts, **_PALIGEMMA)
    model = _random(PaliGemmaForConditionalGeneration, config)
    image, prefix = [319] * 4, [2, 11, 12, 13, 14, 108]
    suffix = [21, 22, 23, 1]
    ids = torch.tensor(
        [image + image + prefix + suffix, [0] * 6 + image + [2, 31, 108, 41, 42, 43, 44, 1]]
    )
    is_suffix = torch.zeros_like(ids)
    is_suffix[0, -4:] = is_suffix[1, -5:] = 1
    valid = torch.ones_like(ids)
    valid[1, :6] = 0
    batch = {"input_ids": ids, "attention_mask": valid, "token_type_ids": is_suffix}
    batch["pixel_values"] = (
        torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    )
    labels = ids.masked_fill(is_suffix == 0, -100)
    prompt = batch | {
        name: batch[name][:, :13] for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    _record("paligemma2", model, batch | {"labels": labels}, prompt)


def gemma4_31b_like() -> None:
    """Gemma 4 with an encoder, as the 31B has it, transformers 5.23.0: earlier versions have another mask.

    Two pictures in the first prompt, one in the second, which is padded on the left; the window is shorter than a
    picture.
    """
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration

    text: dict[str, Any] = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32,
        "num_global_key_value_heads": 1, "attention_k_eq_v": True, "sliding_window": 4,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "final_logit_softcapping": 3.0, "use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0, "max_position_embeddings": 128,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "patch_size": 2, "pooling_kernel_size": 2,
        "position_embedding_size": 16, "standardize": True,
    }  # fmt: skip
    parts: dict[str, Any] = {"text_config": text, "vision_config": vision}
    config = Gemma4Config(**parts, **_GEMMA4_IDS)
    model = _random(Gemma4ForConditionalGeneration, config)
    batch = _gemma4_batch([(4, 6), (2, 8), (6, 4)], num_values=12)
    _record("gemma4_31b_like", model, batch | {"labels": _gemma4_labels(batch)}, batch)


def gemma4_unified() -> None:
    """Gemma 4 without an encoder, transformers 5.23.0; the prompts of `gemma4_31b_like`.

    Its forward lets the tokens of a picture see each other in all layers. Its function for static caches has the mask
    that google-deepmind/gemma has, and that Gemma 4 with an encoder has since issue 46711; `near_*` are with that.
    """
    from transformers.models import gemma4_unified as reference  # type: ignore[attr-defined]

    text: dict[str, Any] = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32,
        "num_global_key_value_heads": 1, "attention_k_eq_v": True, "sliding_window": 4,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "final_logit_softcapping": 3.0, "use_bidirectional_attention": "vision", "max_position_embeddings": 128,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "patch_size": 2, "pooling_kernel_size": 2, "mm_embed_dim": 24, "output_proj_dims": 24, "mm_posemb_size": 16,
    }  # fmt: skip
    config = reference.Gemma4UnifiedConfig(text_config=text, vision_config=vision, **_GEMMA4_IDS)
    model = _random(reference.Gemma4UnifiedForConditionalGeneration, config)
    batch = _gemma4_batch([(2, 3), (1, 4), (3, 2)], num_values=48)
    labels = _gemma4_labels(batch)
    masks = model.create_masks_for_generate(
        config, torch.zeros(*labels.shape, 32), batch["attention_mask"], None, None, batch["mm_token_type_ids"]
    )  # fmt: skip
    with torch.no_grad():
        near = model(**batch | {"attention_mask": masks}, output_hidden_states=True)
    more = {"output.near_hidden": near.hidden_states[-1], "output.near_logits": near.logits}
    _record("gemma4_unified", model, batch | {"labels": labels}, batch, more)


RECORDINGS = {
    "gemma4_unified_pictures": gemma4_unified_pictures,
    "paligemma2": paligemma2,
    "gemma4_31b_like": gemma4_31b_like,
    "gemma4_unified": gemma4_unified,
}


def _gemma4_batch(grids: list[tuple[int, int]], num_values: int) -> dict[str, torch.Tensor]:
    """Pictures with grids of 6, 4 and 6 tokens; two in the first prompt, one in the second, padded on the left."""
    num_patches = max(rows * columns for rows, columns in grids)
    positions = torch.full((3, num_patches, 2), -1)
    for row, (rows, columns) in zip(positions, grids, strict=True):
        raster = torch.arange(rows * columns)
        row[: rows * columns] = torch.stack([raster % columns, raster // columns], dim=1)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(3, num_patches, num_values, generator=generator)
    pixels[positions[..., 0] < 0] = 0.0
    first = [2, 5, 303, *[300] * 6, 304, 303, *[300] * 4, 304, 6, 7, 8]
    second = [2, 303, *[300] * 6, 304, 9]
    ids = torch.tensor([first, [0] * (len(first) - len(second)) + second])
    valid = torch.ones_like(ids)
    valid[1, : len(first) - len(second)] = 0
    return {
        "input_ids": ids, "attention_mask": valid, "mm_token_type_ids": (ids == 300).long(), "pixel_values": pixels,
        "image_position_ids": positions,
    }  # fmt: skip


def _gemma4_labels(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """All words but the first, which would be predicted by padding."""
    ids, valid = batch["input_ids"], batch["attention_mask"]
    is_first = valid.cumsum(dim=1) < 2
    return ids.masked_fill((ids >= 300) | (valid == 0) | is_first, -100)


def _random(kind: Any, config: Any) -> Any:
    """A model of which every weight matters: norms, scalars and buffers too are drawn."""
    config._attn_implementation = "eager"
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if "std_scale" in name or "layer_scalar" in name:
                tensor.copy_(1.0 + 0.2 * noise)
            elif "q_norm" in name or "k_norm" in name:
                tensor.copy_(
                    0.5 + 0.1 * noise
                )  # 1 would make attention so sharp that rounding shows
            elif "norm" in name and "weight" in name:
                tensor.add_(0.2 * noise)  # around 1, or 0 where it is stored less one
            elif tensor.dim() > 1 and "embed" not in name and "position" not in name:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_(0.3 * noise)
        model.tie_weights()
    return model


def _record(
    name: str,
    model: Any,
    batch: dict[str, Any],
    prompt: dict[str, Any],
    more: dict[str, torch.Tensor] | None = None,
) -> None:
    """Records hidden states, logits and loss of a batch, and what follows a prompt greedily."""
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
        generated = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    image_tokens = output.image_hidden_states
    if isinstance(image_tokens, list | tuple):  # one entry a picture
        image_tokens = torch.cat(list(image_tokens))
    tensors = {f"input.{key}": value for key, value in batch.items()} | (more or {})
    tensors |= {
        "output.image_tokens": image_tokens,
        "output.hidden": output.hidden_states[-1],
        "output.logits": output.logits,
        "output.loss": output.loss,
        "output.generated": generated[:, prompt["input_ids"].shape[1] :].contiguous(),
    }
    weights = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    _save(name, tensors)
    _save(name, weights, "weights.safetensors")
    path = GOLDENS / name / "config.json"
    path.write_text(json.dumps(model.config.to_dict(), indent=1, sort_keys=True) + "\n")


def _save(name: str, tensors: dict[str, torch.Tensor], file: str = "io.safetensors") -> None:
    path = GOLDENS / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if not sys.argv[1:] or set(sys.argv[1:]) - set(RECORDINGS):
        sys.exit(f"usage: make_golden.py NAME...; names: {', '.join(sorted(RECORDINGS))}")
    for recording in sys.argv[1:]:
        RECORDINGS[recording]()
