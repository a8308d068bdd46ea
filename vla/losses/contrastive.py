"""Losses that align pictures with texts: SigLIP's sigmoid (Zhai et al. 2023) and CLIP's softmax (Radford et al. 2021).

Embeddings are (batch, width) and of unit length; row i of the pictures belongs to row i of the texts.

SigLIP asks of every pair by itself whether it belongs together, so a batch can be taken in pieces, on one
device or over many, without any normalisation across it. CLIP normalises over the whole batch.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed import nn as distributed_nn
from torch.nn import functional as F

from vla.errors import ConfigError

# SigLIP starts with temperature 10 and bias -10 (section 3.2): most pairs do not belong together, and the bias says so.
SIGLIP_LOG_TEMPERATURE = math.log(10.0)
SIGLIP_BIAS = -10.0
CLIP_LOG_TEMPERATURE = math.log(1.0 / 0.07)  # CLIP, section 2.5


class SigLipScale(nn.Module):
    """The two learnt numbers of the sigmoid loss: logarithm of the temperature, and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(SIGLIP_LOG_TEMPERATURE))
        self.bias = nn.Parameter(torch.tensor(SIGLIP_BIAS))


def siglip_loss(
    images: Float[Tensor, "images width"],
    texts: Float[Tensor, "texts width"],
    log_temperature: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, ""]:
    """Returns the mean over pictures of the summed binary cross-entropies against all texts, in nats.

    Dividing once more by the number of texts gives the mean over pairs; the gradient's direction is the same.

    Args:
        images: unit-length picture embeddings.
        texts: unit-length text embeddings, row i the text of picture i.
        log_temperature: logarithm of the factor on the cosine.
        bias: added to every logit.
        chunk_size: texts taken at a time, for batches whose square does not fit into memory; None takes all.

    Raises:
        ConfigError: `chunk_size` below 1, or numbers of pictures and texts that differ.
    """
    _check_pairs(images, texts)
    size = len(texts) if chunk_size is None else chunk_size
    if size < 1:
        raise ConfigError(f"chunk_size must be at least 1; got {chunk_size}")
    total = images.new_zeros(())
    for first in range(0, len(texts), size):
        chunk = texts[first : first + size]
        total = total + _summed_nats(images, chunk, log_temperature, bias, first_text=first)
    return total / len(images)


def siglip_loss_distributed(
    images: Float[Tensor, "images width"],
    texts: Float[Tensor, "texts width"],
    log_temperature: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Returns this process's share of the loss over the batches of all processes, each of the same size.

    Texts are gathered from everywhere, with their gradients; pictures stay where they are. The mean over the
    processes equals `siglip_loss` of the joined batch, so averaging gradients as usual trains the same.
    Needs an initialised process group.
    """
    _check_pairs(images, texts)
    rank = torch.distributed.get_rank()
    gathered = distributed_nn.functional.all_gather(texts)
    total = images.new_zeros(())
    for owner, theirs in enumerate(gathered):
        first = 0 if owner == rank else None
        total = total + _summed_nats(images, theirs, log_temperature, bias, first_text=first)
    return total / len(images)


def clip_loss(
    images: Float[Tensor, "images width"],
    texts: Float[Tensor, "texts width"],
    log_temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Returns the mean of picture-to-text and text-to-picture cross-entropy over the batch, in nats."""
    _check_pairs(images, texts)
    logits = log_temperature.exp() * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _summed_nats(
    images: Tensor, texts: Tensor, log_temperature: Tensor, bias: Tensor, first_text: int | None
) -> Tensor:
    """Sums over all pairs; text j belongs to picture first_text + j, or to none when `first_text` is None."""
    logits = log_temperature.exp() * images @ texts.T + bias
    sign = -torch.ones_like(logits)
    if first_text is not None:
        column = torch.arange(len(texts), device=logits.device)
        sign[first_text + column, column] = 1.0
    return -F.logsigmoid(sign * logits).sum()


def _check_pairs(images: Tensor, texts: Tensor) -> None:
    if len(images) != len(texts):
        raise ConfigError(
            f"{len(images)} pictures and {len(texts)} texts; a contrastive batch holds one text for each picture"
        )
