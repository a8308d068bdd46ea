"""From a batch to named loss terms, and from held-out batches to numbers with units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vla.data.collate import Batches, TrainBatch
from vla.data.stats import ActionStatistics
from vla.losses.grounding import pointing_loss, position_loss
from vla.losses.joint import JointLoss, joint_loss
from vla.losses.suffix import action_cross_entropy
from vla.tokenizers.action_bins import ActionBins
from vla.training.config import LossConfig
from vla.training.track import Metrics


@dataclass(kw_only=True)
class Objective:
    """Action tokens on the suffix, plus grounding where the dataset carries it."""

    cfg: LossConfig
    bins: ActionBins
    action_statistics: ActionStatistics

    def __call__(self, model: nn.Module, batch: TrainBatch) -> JointLoss:
        output = model(**model_inputs(batch))
        terms = {"action": action_cross_entropy(
            output.action_logits, batch.action_bins, batch.action_valid, sigma_bins=self.cfg.sigma_bins
        )}
        weights = {"action": 1.0}
        if batch.grounding is not None and output.pointing_logits is not None:
            terms["pointing"] = pointing_loss(output.pointing_logits, batch.grounding)
            terms["position"] = position_loss(output.position, batch.grounding)
            weights |= {"pointing": self.cfg.pointing_weight, "position": self.cfg.position_weight}
        return joint_loss(terms, weights)
