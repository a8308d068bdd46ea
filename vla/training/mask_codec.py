"""Stage mask_codec: the autoencoder behind the <seg> tokens, trained on masks of scenes and drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla.checkpoints.mask_codec import FAMILY, KIND
from vla.data.mask_batches import (
    HELD_OUT_SEED,
    LabelledMask,
    MaskBatch,
    MaskBatches,
    cropped,
    drawn_masks,
    gather_masks,
)
from vla.data.mask_crops import paste_mask
from vla.data.scenes import open_scenes
from vla.errors import ConfigError
from vla.losses.joint import joint_loss
from vla.losses.mask_codec import mask_codec_losses
from vla.models.config_dict import config_to_dict
from vla.models.mask_codec import MaskCodec, mask_codec_preset, revive_codewords
from vla.tokenizers.loc_seg import NUM_CODEWORDS, NUM_LOCATIONS
from vla.training.mask_codec_config import MaskCodecStageConfig
from vla.training.pretrain import Described, Lesson, run_lesson
from vla.training.pretrain_config import PretrainConfig
from vla.training.track import Metrics, Tracker

_MASKS_AT_ONCE = 128


def pretrain_mask_codec(cfg: PretrainConfig, directory: Path, tracker: Tracker) -> dict[str, Any]:
    """Trains a codec on `cfg.scenes`, if any, and drawn masks, and returns the run's summary.

    Raises:
        ConfigError: a setting is out of range.
        DatasetError: a folder of scenes cannot be read.
    """
    settings = cfg.mask_codec
    if not 0.0 <= settings.drawn_fraction <= 1.0:
        raise ConfigError(
            f"mask_codec.drawn_fraction lies in [0, 1]; got {settings.drawn_fraction}"
        )
    train_masks, held_out = _scene_masks(cfg)
    torch.manual_seed(cfg.training.seed)
    codec = MaskCodec(mask_codec_preset(settings.preset))
    for parameter in codec.parameters():  # channels innermost: convolutions take half the time
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    sources = {"drawn": drawn_masks(HELD_OUT_SEED, settings.validation_masks)}
    if held_out:
        sources["scenes"] = held_out[: settings.validation_masks]
    lesson = Lesson(
        model=codec,
        objective=CodecObjective(
            codec=codec,
            cfg=settings,
            last_revival=round(settings.revival_fraction * cfg.training.steps),
        ),
        batches=MaskBatches(
            cropped(train_masks),
            cropped(drawn_masks(cfg.training.seed, settings.drawn_masks)),
            batch_size=cfg.training.batch_size,
            drawn_fraction=settings.drawn_fraction,
            seed=cfg.training.seed,
        ),
        validate=lambda _: _measure(codec, sources),
        describe=lambda: Described(
            kind=KIND,
            family=FAMILY,
            config=config_to_dict(codec.config),
            tensors=codec.state_dict(),
        ),
    )
    return run_lesson(lesson, cfg, directory, tracker)


@dataclass(kw_only=True)
class CodecObjective:
    """The reconstruction, and codebook and encoder drawn together; unused codewords are moved along the way.

    Attributes:
        last_revival: step from which on codewords are left alone, so that their averages can settle.
    """

    codec: MaskCodec
    cfg: MaskCodecStageConfig
    last_revival: int

    def __call__(
        self, forward: Callable[..., Any], batch: MaskBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum and the unweighted terms by name, and how many codewords were moved."""
        output = forward(batch.masks)
        terms = mask_codec_losses(output.mask_logits, batch.masks, output.encoded, output.quantised)
        weights = {
            "pixels": 1.0,
            "overlap": self.cfg.overlap_weight,
            "codebook": self.cfg.codebook_weight,
            "commitment": self.cfg.commitment_weight,
        }
        loss = joint_loss(terms, weights)
        if batch.step < self.last_revival:
            moved = revive_codewords(
                self.codec,
                output.encoded.detach(),
                output.codes,
                chance=self.cfg.revival_chance,
            )
            terms = {**terms, "revived_codewords": moved}
        return loss, terms


@torch.no_grad()
def reconstruct(codec: MaskCodec, masks: Sequence[LabelledMask], crops: Tensor) -> list[np.ndarray]:
    """Returns the masks that come back into their pictures after 16 codewords each.

    Boxes go through the location tokens too, as they do in an answer: rounded to 1 / 1023 of the picture.

    Args:
        crops: (N, 64, 64) in [0, 1], the masks in their boxes.
    """
    device = next(codec.parameters()).device
    pasted = []
    for first in range(0, len(masks), _MASKS_AT_ONCE):
        some = crops[first : first + _MASKS_AT_ONCE].to(device)
        decoded = codec.decode(codec.encode(some)).float().cpu().numpy()
        for item, probabilities in zip(masks[first : first + _MASKS_AT_ONCE], decoded, strict=True):
            box = np.rint(np.asarray(item.box) * (NUM_LOCATIONS - 1)) / (NUM_LOCATIONS - 1)
            pasted.append(paste_mask(probabilities, box.tolist(), *item.mask.shape))
    return pasted


def reconstruction_ious(codec: MaskCodec, masks: Sequence[LabelledMask]) -> list[float]:
    """Returns, for each mask, its intersection over union with what comes back after 16 codewords."""
    crops = torch.from_numpy(cropped(masks)).float() / 255.0
    return [
        float((item.mask & pasted).sum() / (item.mask | pasted).sum())
        for item, pasted in zip(masks, reconstruct(codec, masks, crops), strict=True)
    ]


def used_codewords(codec: MaskCodec, masks: Sequence[LabelledMask]) -> int:
    """Returns how many of the 128 codewords these masks need."""
    crops = torch.from_numpy(cropped(masks)).float() / 255.0
    codes = codec.encode(crops.to(next(codec.parameters()).device))
    return len(codes.unique())


def _measure(codec: MaskCodec, sources: dict[str, list[LabelledMask]]) -> Metrics:
    codec.eval()
    metrics: Metrics = {}
    for source, masks in sources.items():
        metrics[f"iou_{source}"] = float(np.mean(reconstruction_ious(codec, masks)))
        metrics[f"codewords_used_{source}"] = used_codewords(codec, masks) / NUM_CODEWORDS
    return metrics


def _scene_masks(cfg: PretrainConfig) -> tuple[list[LabelledMask], list[LabelledMask]]:
    train: list[LabelledMask] = []
    held_out: list[LabelledMask] = []
    for root in cfg.scenes:
        more, more_held_out = gather_masks(
            open_scenes(root, cache=False), cfg.mask_codec.scene_masks
        )
        train += more
        held_out += [item for item in more_held_out if item.is_clear]
    return train, held_out
