"""What teaches the mask codec: the mask again, and codewords and encoder that come to meet each other."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def mask_codec_losses(
    mask_logits: Float[Tensor, "batch 64 64"],
    masks: Float[Tensor, "batch 64 64"],
    encoded: Float[Tensor, "batch 16 width"],
    quantised: Float[Tensor, "batch 16 width"],
) -> dict[str, Float[Tensor, ""]]:
    """Returns the unweighted terms of one batch.

    `pixels`: cross-entropy of every pixel, in nats. `overlap`: one minus the soft Dice coefficient, mean over masks;
    it counts small and large shapes alike. `codebook`: squared distance that moves codewords towards what was encoded.
    `commitment`: the same distance, moving the encoder (van den Oord et al. 2017, equation 3).

    Args:
        mask_logits: reconstructions, above 0 inside.
        masks: in [0, 1].
        encoded: before quantisation.
        quantised: the codewords chosen.
    """
    logits = mask_logits.float()
    probabilities = logits.sigmoid()
    shared = (probabilities * masks).sum(dim=(1, 2))
    sizes = (probabilities + masks).sum(dim=(1, 2))
    return {
        "pixels": F.binary_cross_entropy_with_logits(logits, masks),
        "overlap": 1.0 - (2.0 * shared / sizes.clamp(min=1.0)).mean(),
        "codebook": F.mse_loss(quantised.float(), encoded.detach().float()),
        "commitment": F.mse_loss(encoded.float(), quantised.detach().float()),
    }


def mask_iou(
    predicted: Float[Tensor, "batch 64 64"], masks: Float[Tensor, "batch 64 64"]
) -> Float[Tensor, " batch"]:
    """Returns intersection over union of each pair, both thresholded at a half; 1 where both are empty."""
    ours, theirs = predicted > 0.5, masks > 0.5
    union = (ours | theirs).sum(dim=(1, 2))
    shared = (ours & theirs).sum(dim=(1, 2))
    return torch.where(union > 0, shared / union.clamp(min=1), torch.ones_like(union)).float()
