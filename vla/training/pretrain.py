"""What all pretraining stages share: where a run goes on, the loop, its checkpoints and its summary."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from vla.checkpoints.folder import TrainingState, load_training_state, save_folder
from vla.checkpoints.series import CheckpointSeries
from vla.errors import CheckpointError
from vla.training.loop import Batch, BatchSource, Progressed, TrainingObjective, train
from vla.training.pretrain_config import PretrainConfig
from vla.training.track import Metrics, Tracker

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Described:
    """What a checkpoint of a stage holds.

    Attributes:
        kind: of the folder: "picture_text", "tower", "decoder", "mask_codec" or "vlm".
        family: of the model.
        config: of the model, as `config_to_dict` gives it.
        tensors: of the model, by name.
        tokenizer: whose ids the model was trained on, if it reads words.
        more: further entries of config.json.
    """

    kind: str
    family: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Lesson[B: Batch]:
    """A stage, ready to run: who learns, what from, and how one tells.

    Attributes:
        model: all that is trained, and all that resuming must restore, as parameters (frozen ones too).
        objective: see `TrainingObjective`.
        batches: see `BatchSource`.
        validate: held-out metrics of the model, which then holds its averaged weights.
        describe: what to keep, of the model as it is when called.
    """

    model: nn.Module
    objective: TrainingObjective[B]
    batches: BatchSource[B]
    validate: Callable[[nn.Module], Metrics]
    describe: Callable[[], Described]


def newest_checkpoint(cfg: PretrainConfig, directory: Path) -> Path | None:
    """Returns the checkpoint that the run goes on from; None for a new run."""
    newest = CheckpointSeries(directory / "checkpoints").latest() if cfg.resume else None
    if cfg.resume and newest is None:
        logger.info("nothing to resume in %s; starting anew", directory)
    return newest


def run_lesson[B: Batch](
    lesson: Lesson[B], cfg: PretrainConfig, directory: Path, tracker: Tracker
) -> dict[str, Any]:
    """Trains as `cfg.training` says, keeps checkpoints in `directory / "checkpoints"`, and returns the run's summary.

    A resumed run (cfg.resume) goes on bit for bit.

    Raises:
        CheckpointError: the checkpoint to resume from is of another run.
    """
    series = CheckpointSeries(directory / "checkpoints")
    batch_size = cfg.training.batch_size

    def save(_: nn.Module, state: dict[str, Tensor], done: Progressed) -> None:
        learnt = lesson.describe()
        described = {
            "kind": learnt.kind,
            "model": {"family": learnt.family, "config": learnt.config},
            **learnt.more,
            "training": {
                **done.to_dict(),
                "stage": cfg.stage.value,
                "samples": done.step * batch_size,
                "scenes": cfg.scenes,
            },
        }
        resumable = TrainingState(tensors=state, values=done.to_dict())
        series.save(
            done.step,
            lambda path: save_folder(
                path,
                described,
                learnt.tensors,
                tokenizer=learnt.tokenizer,
                training_state=resumable,
            ),
        )

    num_trained = sum(p.numel() for p in lesson.model.parameters() if p.requires_grad)
    logger.info("stage %s: %s parameters are trained", cfg.stage.value, f"{num_trained:,}")
    done = train(
        lesson.model,
        lesson.objective,
        lesson.batches,
        cfg.training,
        validate=lesson.validate,
        tracker=tracker,
        save=save,
        resume=_resumable(newest_checkpoint(cfg, directory)),
    )
    return {
        **done.to_dict(),
        "steps": done.step,
        "samples": done.step * batch_size,
        "samples_per_cpu_second": done.step * batch_size / max(done.cpu_seconds, 1e-9),
        "parameters": num_trained,
        "checkpoint": str(series.latest()),
    }


def _resumable(newest: Path | None) -> tuple[dict[str, torch.Tensor], Progressed] | None:
    if newest is None:
        return None
    state = load_training_state(newest)
    try:
        return state.tensors, Progressed(**state.values)
    except TypeError as error:
        raise CheckpointError(
            f"{newest}: {error}; it was written by another version, start anew"
        ) from None
