"""From a batch to named loss terms, and from held-out batches to numbers with units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vla.data.collate import Batches, TrainBatch
from vla.data.stats import ActionStatistics
from vla.errors import ConfigError
from vla.losses.grounding import grounding_losses, patch_of_pixel
from vla.losses.joint import joint_loss
from vla.losses.suffix import action_cross_entropy
from vla.tokenizers.action_bins import ActionBins
from vla.training.config import LossConfig
from vla.training.track import Metrics
from vla.types import ActionSpec


@dataclass(kw_only=True)
class Objective:
    """Cross-entropy of the action tokens, the only suffix, plus grounding where model and dataset carry it."""

    cfg: LossConfig

    def __call__(
        self, forward: Callable[..., Any], batch: TrainBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum and the unweighted terms by name, all scalars."""
        output = forward(
            batch.images,
            batch.text_ids,
            batch.text_valid,
            batch.state,
            action_bins=batch.action_bins,
        )
        terms = {
            "action": action_cross_entropy(
                output.action_logits,
                batch.action_bins,
                batch.action_valid,
                sigma_bins=self.cfg.sigma_bins,
            )
        }
        if output.pointing_logits is not None and batch.grounding is not None:
            terms |= grounding_losses(
                output.pointing_logits, output.target_from_tool_dm, batch.grounding
            )
        weights = {
            "action": 1.0,
            "pointing": self.cfg.pointing_weight,
            "offset": self.cfg.offset_weight,
        }
        return joint_loss(terms, weights), terms


@torch.no_grad()
def validate(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    num_batches: int,
    *,
    statistics: ActionStatistics,
    spec: ActionSpec,
) -> Metrics:
    """Returns averages over the first batches of the held-out episodes.

    `loss` and its terms; `token_accuracy` (exact bin) and `token_accuracy_within_2` (at most two bins off);
    `action_l1/<name>` in the unit of that action dimension, at the bin's midpoint; `pointing_accuracy/view<i>`
    (share of visible objects whose image token gets the most weight).
    """
    model.eval()
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}

    def add(name: str, values: Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float(values.double().sum())
        counts[name] = counts.get(name, 0.0) + values.numel()

    for step in range(min(num_batches, batches.len_epoch)):
        batch = batches.at(step).to(device)
        keep: dict[str, Any] = {}

        def forward(*args: Any, keep: dict[str, Any] = keep, **kwargs: Any) -> Any:
            keep["output"] = model(*args, **kwargs)
            return keep["output"]

        loss, terms = objective(forward, batch)
        for name, value in {"loss": loss, **terms}.items():
            add(name, value.expand(len(batch.images)))
        output, valid = keep["output"], batch.action_valid
        chosen = output.action_logits.argmax(dim=-1)
        off = (chosen - batch.action_bins).abs()[valid]
        add("token_accuracy", off == 0)
        add("token_accuracy_within_2", off <= 2)
        actions = torch.from_numpy(statistics.unnormalize(ActionBins.decode(chosen.cpu().numpy())))
        error = (actions.to(device) - batch.actions).abs()[valid]
        for dim, name in enumerate(spec.names):
            add(f"action_l1/{name}", error[:, dim])
        if output.pointing_logits is not None and batch.grounding is not None:
            _add_pointing(add, output.pointing_logits, batch.grounding)
    if not counts:
        raise ConfigError("no validation batches; raise data.validation_fraction or set it to 0")
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def _add_pointing(
    add: Callable[[str, Tensor], None], pointing_logits: Tensor, grounding: Tensor
) -> None:
    num_views, num_patches = pointing_logits.shape[1:]
    pixels = grounding[:, 3:].view(-1, num_views, 2)
    visible = (pixels >= 0).all(dim=-1)
    hit = pointing_logits.argmax(dim=-1) == patch_of_pixel(pixels.clamp(min=0), num_patches)
    for view in range(num_views):
        add(f"pointing_accuracy/view{view}", hit[:, view][visible[:, view]])
