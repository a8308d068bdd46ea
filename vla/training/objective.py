"""From a batch to named loss terms, and from held-out batches to numbers with units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla.data.collate import Batches, TrainBatch
from vla.data.stats import ActionStatistics
from vla.errors import ConfigError
from vla.losses.continuous import draw_flow, flow_matching_loss, l1_loss
from vla.losses.grounding import grounding_losses, patch_of_pixel
from vla.losses.joint import joint_loss, token_terms
from vla.losses.suffix import action_cross_entropy
from vla.models.action_config import ActionDecoding
from vla.models.action_heads import ActionOutput
from vla.models.action_model import VisionLanguageAction
from vla.models.flow_sampling import sample
from vla.tokenizers.action_bins import ActionBins
from vla.training.config import LossConfig
from vla.training.track import Metrics
from vla.types import ActionSpec


@dataclass(kw_only=True)
class Objective:
    """The loss of the action head, whichever it is, plus grounding where model and dataset carry it.

    Models that decode token by token answer for all of the vocabulary, and for the end token after the last action.

    Attributes:
        end_id: that end token.
        decoding: how the model that is trained acts.
        generator: of a flow's times and noise; None takes torch's own, whose state is kept with a run.
    """

    cfg: LossConfig
    end_id: int
    decoding: ActionDecoding = ActionDecoding.PARALLEL
    generator: torch.Generator | None = None

    def __call__(
        self, forward: Callable[..., Any], batch: TrainBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum and the unweighted terms by name, all scalars."""
        output, terms = self._act(forward, batch)
        if output.pointing_logits is not None and batch.grounding is not None:
            assert output.target_from_tool_dm is not None
            terms |= grounding_losses(
                output.pointing_logits, output.target_from_tool_dm, batch.grounding
            )
        weights = {
            "action": 1.0,
            "z": self.cfg.z_weight,
            "pointing": self.cfg.pointing_weight,
            "offset": self.cfg.offset_weight,
        }
        return joint_loss(terms, weights), terms

    def _act(
        self, forward: Callable[..., ActionOutput], batch: TrainBatch
    ) -> tuple[ActionOutput, dict[str, Tensor]]:
        inputs = (batch.images, batch.text_ids, batch.text_valid, batch.state)
        match self.decoding:
            case ActionDecoding.AUTOREGRESSIVE:
                output = forward(*inputs, action_bins=batch.action_bins)
                return output, self._token_terms(output, batch.action_valid)
            case ActionDecoding.FAST:
                assert batch.fast_tokens is not None
                output = forward(*inputs, fast_tokens=batch.fast_tokens)
                return output, self._fast_terms(output, batch.fast_tokens)
            case ActionDecoding.PARALLEL:
                output = forward(*inputs, action_bins=batch.action_bins)
                assert output.action_logits is not None
                loss = action_cross_entropy(
                    output.action_logits,
                    batch.action_bins,
                    batch.action_valid,
                    sigma_bins=self.cfg.sigma_bins,
                )
            case ActionDecoding.L1:
                output = forward(*inputs)
                assert output.actions is not None
                loss = l1_loss(output.actions, batch.normalized, batch.action_valid)
            case ActionDecoding.FLOW:
                draw = draw_flow(batch.normalized, self.cfg.flow_times, self.generator)
                output = forward(*inputs, noisy=draw.noisy, time=draw.time)
                assert output.velocity is not None
                loss = flow_matching_loss(output.velocity, draw.velocity, batch.action_valid)
        return output, {"action": loss}

    def _token_terms(self, output: ActionOutput, action_valid: Tensor) -> dict[str, Tensor]:
        assert output.token_logits is not None
        assert output.token_ids is not None
        num_dims = output.token_ids.shape[1] // action_valid.shape[1]
        is_label = action_valid.repeat_interleave(num_dims, dim=1)
        return token_terms(
            output.token_logits,
            F.pad(output.token_ids, (0, 1), value=self.end_id),
            {"action": F.pad(is_label, (0, 1), value=True)},
            has_z=self.cfg.z_weight > 0,
        )

    def _fast_terms(self, output: ActionOutput, fast_tokens: Tensor) -> dict[str, Tensor]:
        """As many labels a row as it has tokens, and the end token after them."""
        assert output.token_logits is not None
        ids, is_label = fast_labels(output, fast_tokens, self.end_id)
        return token_terms(
            output.token_logits, ids, {"action": is_label}, has_z=self.cfg.z_weight > 0
        )


def fast_labels(output: ActionOutput, fast_tokens: Tensor, end_id: int) -> tuple[Tensor, Tensor]:
    """Returns (batch, tokens + 1) ids, the end token after each row's last, and which of them count."""
    assert output.token_ids is not None
    ends = (fast_tokens >= 0).sum(dim=1, keepdim=True)
    ids = F.pad(output.token_ids, (0, 1)).scatter(1, ends, end_id)
    return ids, torch.arange(ids.shape[1], device=ids.device) <= ends


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

    `loss` and its terms; with bins `token_accuracy` (exact bin) and `token_accuracy_within_2` (at most two bins off);
    `action_l1/<name>` in the unit of that action dimension, at the bin's midpoint, of the number, or of one draw from
    a flow; `pointing_accuracy/view<i>` (share of visible objects whose image token gets the most weight). A flow's
    times and noise are the same at every validation. With FAST `token_accuracy` alone: true tokens before each, what
    the model says need not spell a chunk.
    """
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    objective = replace(objective, generator=generator)
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
        if output.action_logits is not None:
            off = (output.action_logits.argmax(dim=-1) - batch.action_bins).abs()[valid]
            add("token_accuracy", off == 0)
            add("token_accuracy_within_2", off <= 2)
        if batch.fast_tokens is not None and output.token_logits is not None:
            ids, is_label = fast_labels(output, batch.fast_tokens, objective.end_id)
            add("token_accuracy", (output.token_logits.argmax(dim=-1) == ids)[is_label])
            continue
        chosen = _normalized(model, output, batch, generator)
        actions = torch.from_numpy(statistics.unnormalize(chosen.cpu().numpy()))
        error = (actions.to(device) - batch.actions).abs()[valid]
        for dim, name in enumerate(spec.names):
            add(f"action_l1/{name}", error[:, dim])
        if output.pointing_logits is not None and batch.grounding is not None:
            _add_pointing(add, output.pointing_logits, batch.grounding)
    if not counts:
        raise ConfigError("no validation batches; raise data.validation_fraction or set it to 0")
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def _normalized(
    model: nn.Module, output: ActionOutput, batch: TrainBatch, generator: torch.Generator
) -> Tensor:
    """Returns (batch, steps, dims) the actions that the model would take, normalised."""
    if output.action_logits is not None:
        bins = output.action_logits.argmax(dim=-1)
        return torch.from_numpy(ActionBins.decode(bins.cpu().numpy()))
    if output.actions is not None:
        return output.actions.float()
    assert isinstance(model, VisionLanguageAction)
    prefix = model.prefix(batch.images, batch.text_ids, batch.text_valid, batch.state)
    shape, device = batch.normalized.shape, batch.normalized.device
    return sample(model.velocity(prefix), torch.randn(shape, generator=generator, device=device))


def _add_pointing(
    add: Callable[[str, Tensor], None], pointing_logits: Tensor, grounding: Tensor
) -> None:
    num_views, num_patches = pointing_logits.shape[1:]
    pixels = grounding[:, 3:].view(-1, num_views, 2)
    visible = (pixels >= 0).all(dim=-1)
    hit = pointing_logits.argmax(dim=-1) == patch_of_pixel(pixels.clamp(min=0), num_patches)
    for view in range(num_views):
        add(f"pointing_accuracy/view{view}", hit[:, view][visible[:, view]])
