"""Puts a run together from its config: datasets, tokenizer, statistics, model, and where it stopped last time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from vla.checkpoints import native
from vla.checkpoints.contract import Contract
from vla.checkpoints.series import CheckpointSeries
from vla.data.collate import BatchConfig, Batches, Split
from vla.data.jitter import ColorJitterConfig
from vla.data.lerobot import Frames, open_frames
from vla.data.stats import ActionStatistics, StateStatistics
from vla.errors import CheckpointError, ConfigError, DatasetError, unknown_name
from vla.models.backbones import prismatic_config
from vla.models.backbones.prismatic import Prismatic
from vla.tokenizers.prompt import PromptEncoder, PromptTemplate
from vla.tokenizers.text import train_text_tokenizer
from vla.training.config import BackboneConfig, BackbonePreset, DataConfig, Part, RunConfig
from vla.training.loop import Progressed, train
from vla.training.objective import Objective, validate
from vla.training.stages import freeze
from vla.training.track import Metrics, Tracker
from vla.types import TABLETOP, Embodiment

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Learner:
    """A model and everything that must stay with it to act."""

    model: Prismatic
    contract: Contract
    tokenizer: Tokenizer


def train_policy(
    cfg: RunConfig, directory: Path, tracker: Tracker, corpus: list[str]
) -> dict[str, Any]:
    """Trains as `cfg` says, keeps checkpoints in `directory / "checkpoints"`, and returns the run's summary.

    Args:
        corpus: sentences that a new tokenizer is trained on, beside the instructions in the datasets.

    Raises:
        DatasetError: a dataset is missing or does not fit.
        CheckpointError: `init_from` or the checkpoint to resume from cannot be used.
        ConfigError: a setting is out of range.
    """
    series = CheckpointSeries(directory / "checkpoints")
    newest = series.latest() if cfg.resume else None
    if cfg.resume and newest is None:
        logger.info("nothing to resume in %s; starting anew", directory)
    torch.manual_seed(cfg.training.seed)
    learner, frames = _learner_and_frames(cfg, newest, corpus)
    batches, held_out = build_batches(cfg, learner, frames)
    freeze(learner.model, cfg.training.frozen_parts, _parts(learner.model))
    objective = Objective(cfg=cfg.training.loss)

    def measure(model: nn.Module) -> Metrics:
        assert held_out is not None
        return validate(
            model,
            objective,
            held_out,
            cfg.training.validation_batches,
            statistics=learner.contract.action_statistics,
            spec=learner.contract.embodiment.action_spec,
        )

    def save(model: nn.Module, state: dict[str, Tensor], done: Progressed) -> None:
        training = {
            **done.to_dict(),
            "samples": done.step * cfg.training.batch_size,
            "datasets": cfg.data.roots,
        }
        contract = replace(learner.contract, training=training)
        resumable = native.TrainingState(tensors=state, values=done.to_dict())
        series.save(
            done.step,
            lambda path: native.save(
                path, learner.model, contract, learner.tokenizer, training_state=resumable
            ),
        )

    logger.info(
        "%s parameters, %d training frames, %d held out",
        f"{sum(p.numel() for p in learner.model.parameters()):,}",
        batches.num_samples,
        held_out.num_samples if held_out else 0,
    )
    done = train(
        learner.model,
        objective,
        batches,
        cfg.training,
        validate=measure if held_out is not None else None,
        tracker=tracker,
        save=save,
        resume=_resumable(newest),
    )
    return {
        **done.to_dict(),
        "samples": done.step * cfg.training.batch_size,
        "samples_per_cpu_second": done.step * cfg.training.batch_size / max(done.cpu_seconds, 1e-9),
        "checkpoint": str(series.latest()),
        "floored_dimensions": learner.contract.action_statistics.floored,
    }


def open_datasets(cfg: DataConfig, image_size: int, embodiment: Embodiment) -> list[Frames]:
    """Returns the frames of every dataset; raises DatasetError when one is missing or does not fit the embodiment."""
    if not cfg.roots:
        raise DatasetError("no dataset given; name one or more with data.roots=[PATH,...]")
    return [
        open_frames(
            Path(root).expanduser(),
            cameras=embodiment.camera_names,
            action_width=embodiment.action_spec.width,
            state_width=embodiment.state_spec.width,
            image_size=image_size,
            rate_hz=embodiment.action_spec.rate_hz,
        )
        for root in cfg.roots
    ]


def new_learner(
    backbone: BackboneConfig, corpus: list[str], frames: list[Frames], embodiment: Embodiment
) -> Learner:
    """Returns a model with random weights (from torch's generator), a tokenizer and statistics of the datasets."""
    match backbone.preset:
        case BackbonePreset.TINY:
            tasks = [task for f in frames for task in f.tasks]
            tokenizer = train_text_tokenizer([*tasks, *corpus], backbone.text_vocab_size)
            shape = prismatic_config.tiny(
                tokenizer.get_vocab_size(),
                width=backbone.width,
                depth=backbone.depth,
                vision_width=backbone.vision_width,
                vision_depth=backbone.vision_depth,
                patch_size=backbone.patch_size,
                chunk_length=backbone.chunk_length,
            )
    shape = replace(shape, image_size=backbone.image_size, num_views=len(embodiment.camera_names))
    contract = Contract(
        embodiment=embodiment,
        image_size=backbone.image_size,
        prompt=_prompt_template(backbone.prompt),
        max_text_tokens=backbone.max_text_tokens,
        action_statistics=_action_statistics(frames, embodiment),
        state_statistics=StateStatistics.from_array(
            np.concatenate([f.state for f in frames]), embodiment.state_spec
        ),
    )
    return Learner(model=Prismatic(shape), contract=contract, tokenizer=tokenizer)


def build_batches(
    cfg: RunConfig, learner: Learner, frames: list[Frames]
) -> tuple[Batches, Batches | None]:
    """Returns training batches, and validation batches of scenes that training never sees, if any are held out."""
    data, contract = cfg.data, learner.contract

    def batches(split: Split) -> Batches:
        return Batches(
            frames,
            contract.action_statistics,
            contract.state_statistics,
            PromptEncoder(learner.tokenizer, contract.prompt, contract.max_text_tokens),
            spec=contract.embodiment.action_spec,
            chunk_length=learner.model.config.chunk_length,
            batch_size=cfg.training.batch_size,
            seed=cfg.training.seed,
            split=split,
            cfg=BatchConfig(
                weights=data.weights,
                val_fraction=data.validation_fraction,
                jitter=ColorJitterConfig(
                    brightness=data.brightness_jitter,
                    contrast=data.contrast_jitter,
                    saturation=data.saturation_jitter,
                ),
            ),
        )

    return batches(Split.TRAIN), batches(Split.VAL) if data.validation_fraction > 0 else None


def _learner_and_frames(
    cfg: RunConfig, newest: Path | None, corpus: list[str]
) -> tuple[Learner, list[Frames]]:
    """Returns what is trained (resumed, fine-tuned or new) and on what."""
    source = newest or (Path(cfg.init_from) if cfg.init_from else None)
    if source is None:
        embodiment = replace(TABLETOP, camera_names=tuple(cfg.data.cameras))
        frames = open_datasets(cfg.data, cfg.backbone.image_size, embodiment)
        return new_learner(cfg.backbone, corpus, frames, embodiment), frames
    loaded = native.load(source)
    contract = loaded.contract
    frames = open_datasets(cfg.data, contract.image_size, contract.embodiment)
    if newest is None and cfg.data.statistics_from_data:
        statistics = _action_statistics(frames, contract.embodiment)
        contract = replace(contract, action_statistics=statistics)
    return Learner(model=loaded.model, contract=contract, tokenizer=loaded.tokenizer), frames


def _resumable(newest: Path | None) -> tuple[dict[str, Tensor], Progressed] | None:
    if newest is None:
        return None
    state = native.load_training_state(newest)
    try:
        return state.tensors, Progressed(**state.values)
    except TypeError as error:
        raise CheckpointError(
            f"{newest}: {error}; it was written by another version, start anew"
        ) from None


def _parts(model: Prismatic) -> dict[Part, nn.Module]:
    return {Part.VISION: model.vision, Part.CONNECTOR: model.projector, Part.DECODER: model.decoder}


def _action_statistics(frames: list[Frames], embodiment: Embodiment) -> ActionStatistics:
    statistics = ActionStatistics.from_array(
        np.concatenate([f.actions for f in frames]), embodiment.action_spec
    )
    if statistics.floored:
        logger.info("these action dimensions hardly move: %s", ", ".join(statistics.floored))
    return statistics


def _prompt_template(name: str) -> PromptTemplate:
    try:
        return PromptTemplate[name.upper()]
    except KeyError:
        choices = [template.name.lower() for template in PromptTemplate]
        raise ConfigError(unknown_name("prompt", name, choices)) from None
