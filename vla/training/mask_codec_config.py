"""What stage=mask_codec of `vla pretrain` is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class MaskCodecStageConfig:
    """Settings of the mask codec's training."""

    preset: str = "tiny"  # shape: tiny, or big_vision_oid (PaliGemma's)
    drawn_masks: int = 20_000  # drawn by numbers, about a millisecond each, before the first step
    drawn_fraction: float = 0.5  # of a batch, where there are scenes too
    scene_masks: int = 40_000  # at most so many masks of the scenes are held in memory (4 kB each)
    validation_masks: int = 500  # of either kind, held out
    overlap_weight: float = 1.0  # of the Dice term
    codebook_weight: float = 1.0  # of the term that moves codewords
    commitment_weight: float = 0.25  # of the term that moves the encoder; van den Oord et al. 2017
    revival_chance: float = 0.03  # a step, of a codeword that the batch did not use
    revival_fraction: float = 0.6  # of the run, after which codewords stay where they are
