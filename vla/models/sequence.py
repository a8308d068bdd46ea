"""How the prefix is put together, for every backbone that reads images and words in one row."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def insert_after_bos(
    text: Float[Tensor, "batch text width"],
    text_valid: Bool[Tensor, "batch text"],
    image_tokens: Float[Tensor, "batch image_tokens width"],
    last: Float[Tensor, "batch 1 width"] | None = None,
) -> tuple[Float[Tensor, "batch prefix width"], Bool[Tensor, "batch prefix"]]:
    """Returns [BOS | image tokens | the other text tokens | last], and which of them are not padding."""
    is_image = text_valid.new_ones(image_tokens.shape[:2])
    parts = [text[:, :1], image_tokens, text[:, 1:]]
    valid = [text_valid[:, :1], is_image, text_valid[:, 1:]]
    if last is not None:
        parts.append(last)
        valid.append(is_image[:, :1])
    return torch.cat(parts, dim=1), torch.cat(valid, dim=1)
