"""Puts a run together from its config: datasets, tokenizer, statistics, model, and where it stopped last time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from vla.checkpoints import native
from vla.checkpoints.contract import Contract
from vla.checkpoints.folder import find, read_config
from vla.checkpoints.series import CheckpointSeries
from vla.data.chunks import ActionChunks
from vla.data.collate import BatchConfig, Batches, Split
from vla.data.jitter import ColorJitterConfig
from vla.data.joint_batches import split_rows
from vla.data.lerobot import Frames, open_frames
from vla.data.stats import ActionStatistics, StateStatistics
from vla.errors import CheckpointError, ConfigError, DatasetError, unknown_name
from vla.models.action_config import ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.tokenizers.fast import FastTokenizer, train_fast
from vla.tokenizers.prompt import PromptTemplate
from vla.tokenizers.prompt_action import InstructionPrompts
from vla.training.config import DataConfig, Part, RunConfig
from vla.training.joint import Words, ask_about_scenes, joined, words_of_scenes
from vla.training.loop import Progressed, train
from vla.training.objective import Objective, validate
from vla.training.shapes import action_config, pretrained_backbone, small_backbone
from vla.training.stages import freeze
from vla.training.track import Metrics, Tracker
from vla.types import TABLETOP, Embodiment

logger = logging.getLogger(__name__)

_FAST_CHUNKS = 20_000  # that a FAST tokenizer is trained on, at most


@dataclass(kw_only=True)
class Learner:
    """A model and everything that must stay with it to act."""

    model: VisionLanguageAction
    contract: Contract
    tokenizer: Tokenizer

    @property
    def prompts(self) -> InstructionPrompts:
        """Instructions to token rows."""
        return native.instruction_prompts(self.model.backbone, self.contract, self.tokenizer)


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
    objective = Objective(
        cfg=cfg.training.loss,
        end_id=learner.prompts.end_id,
        decoding=learner.model.config.decoding,
    )
    words = ask_about_scenes(cfg, learner.model.backbone, learner.tokenizer)
    measure = _measurement(cfg, learner, objective, held_out, words)

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
    taught, source = joined(objective, batches, words, cfg.training.loss)
    done = train(
        learner.model,
        taught,
        source,
        cfg.training,
        validate=measure,
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


def _measurement(
    cfg: RunConfig,
    learner: Learner,
    objective: Objective,
    held_out: Batches | None,
    words: Words | None,
) -> Callable[[nn.Module], Metrics] | None:
    """Returns what measures actions, and answers about scenes, on what is held out; None if nothing is."""
    if held_out is None and words is None:
        return None

    def measure(model: nn.Module) -> Metrics:
        metrics: Metrics = {}
        if held_out is not None:
            metrics |= validate(
                model,
                objective,
                held_out,
                cfg.training.validation_batches,
                statistics=learner.contract.action_statistics,
                spec=learner.contract.embodiment.action_spec,
            )
        if words is not None:
            metrics |= words.measure(cfg.training.validation_batches)
        return metrics

    return measure


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
    cfg: RunConfig,
    corpus: list[str],
    frames: list[Frames],
    embodiment: Embodiment,
    source: Path | None = None,
) -> Learner:
    """Returns a model whose heads have random weights (from torch's generator), a tokenizer and the data's statistics.

    Args:
        cfg: of the run.
        corpus: sentences that a new tokenizer is to know, beside the instructions in `frames`.
        frames: of every dataset.
        embodiment: what it acts with.
        source: checkpoint of a model that answers, to go on from; None starts a small one from nothing.
    """
    shape, num_views = cfg.backbone, len(embodiment.camera_names)
    if source is not None:
        backbone, tokenizer = pretrained_backbone(
            source, shape, num_views, keeps_weights=shape.keeps_weights
        )
    else:
        tasks = [task for f in frames for task in f.tasks]
        sentences = [*tasks, *corpus, *words_of_scenes(cfg.data)]
        backbone, tokenizer = small_backbone(
            shape, sentences, num_views, answers=bool(cfg.data.scenes)
        )
    statistics = _action_statistics(frames, embodiment)
    contract = Contract(
        embodiment=embodiment,
        image_size=shape.image_size,
        prompt=_prompt_template(shape.prompt),
        max_text_tokens=shape.max_text_tokens,
        action_statistics=statistics,
        fast=_fast_tokenizer(cfg, frames, statistics, embodiment),
        state_statistics=StateStatistics.from_array(
            np.concatenate([f.state for f in frames]), embodiment.state_spec
        ),
    )
    model = VisionLanguageAction(backbone, action_config(shape, tokenizer))
    return Learner(model=model, contract=contract, tokenizer=tokenizer)


def build_batches(
    cfg: RunConfig, learner: Learner, frames: list[Frames]
) -> tuple[Batches, Batches | None]:
    """Returns training batches, and validation batches of scenes that training never sees, if any are held out."""
    data, contract = cfg.data, learner.contract
    num_rows, _ = split_rows(cfg.training.batch_size, data.scene_fraction)

    def batches(split: Split) -> Batches:
        return Batches(
            frames,
            contract.action_statistics,
            contract.state_statistics,
            learner.prompts,
            spec=contract.embodiment.action_spec,
            chunk_length=learner.model.config.chunk_length,
            batch_size=num_rows,
            seed=cfg.training.seed,
            split=split,
            fast=contract.fast,
            cfg=BatchConfig(
                weights=data.weights,
                val_fraction=data.validation_fraction,
                unknown_words=data.unknown_words,
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
    source = newest or (find(Path(cfg.init_from)) if cfg.init_from else None)
    if source is None or read_config(source)["kind"] == "vlm":
        embodiment = replace(TABLETOP, camera_names=tuple(cfg.data.cameras))
        frames = open_datasets(cfg.data, cfg.backbone.image_size, embodiment)
        return new_learner(cfg, corpus, frames, embodiment, source), frames
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


def _parts(model: VisionLanguageAction) -> dict[Part, nn.Module]:
    backbone = model.backbone
    connector = backbone.connector
    return {
        Part.VISION: backbone.vision,
        Part.CONNECTOR: nn.Identity() if connector is None else connector,
        Part.DECODER: backbone.decoder,
    }


def _action_statistics(frames: list[Frames], embodiment: Embodiment) -> ActionStatistics:
    statistics = ActionStatistics.from_array(
        np.concatenate([f.actions for f in frames]), embodiment.action_spec
    )
    if statistics.floored:
        logger.info("these action dimensions hardly move: %s", ", ".join(statistics.floored))
    return statistics


def _fast_tokenizer(
    cfg: RunConfig, frames: list[Frames], statistics: ActionStatistics, embodiment: Embodiment
) -> FastTokenizer | None:
    """Returns a tokenizer trained on the run's own chunks, the same at every start; None unless the run decodes so."""
    shape = cfg.backbone
    if shape.decoding is not ActionDecoding.FAST:
        return None
    chunks = ActionChunks(frames, statistics, embodiment.action_spec, shape.chunk_length)
    fast = train_fast(
        chunks.some(_FAST_CHUNKS), scale=shape.fast_scale, vocab_size=shape.fast_vocab_size
    )
    logger.info(
        "FAST: %d tokens; an action is off by %.4f of the range of its dimension, root mean square",
        fast.num_tokens,
        fast.error_bound / 2,
    )
    return fast


def _prompt_template(name: str) -> PromptTemplate:
    try:
        return PromptTemplate[name.upper()]
    except KeyError:
        choices = [template.name.lower() for template in PromptTemplate]
        raise ConfigError(unknown_name("prompt", name, choices)) from None
