"""`vla pretrain STAGE`: labelled scenes in, a part of a model or a model that answers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from vla.cli.train import open_tracker
from vla.training.pretrain_config import PretrainConfig, Stage
from vla.training.track import Metrics, Tracker

if TYPE_CHECKING:
    from vla.checkpoints.answering import Answerable
    from vla.data.scene_rows import SceneRow


def run(cfg: PretrainConfig, directory: Path) -> dict[str, Any]:
    """Trains one stage, and returns steps, samples, times, held-out metrics and the path of the checkpoint."""
    tracker = open_tracker(cfg.wandb, directory, cfg)
    try:
        return _train_stage(cfg, directory, tracker)
    finally:
        tracker.close()


def _train_stage(cfg: PretrainConfig, directory: Path, tracker: Tracker) -> dict[str, Any]:
    match cfg.stage:
        case Stage.SIGLIP | Stage.CLIP:
            from vla.training.contrastive import pretrain_pair

            return pretrain_pair(
                cfg,
                directory,
                tracker,
                lambda images, texts: _retrieval(images, texts, cfg.contrastive.retrieval_pool),
            )
        case Stage.DINOV2:
            from vla.training.self_distillation import pretrain_tower

            return pretrain_tower(cfg, directory, tracker)
        case Stage.OBJECTS:
            from vla.training.objects import pretrain_objects

            return pretrain_objects(cfg, directory, tracker)
        case Stage.TEXT:
            from vla.training.language import pretrain_decoder

            return pretrain_decoder(cfg, directory, tracker)
        case Stage.MASK_CODEC:
            from vla.training.mask_codec import pretrain_mask_codec

            return pretrain_mask_codec(cfg, directory, tracker)
        case Stage.MULTIMODAL | Stage.TRANSFER:
            from vla.training.multimodal import pretrain_multimodal

            summary = pretrain_multimodal(cfg, directory, tracker, _examine)
            return {**summary, **_measure(cfg, summary["checkpoint"])}


def _examine(model: Answerable, rows: Sequence[SceneRow]) -> Metrics:
    """Returns the figures of generated answers on held-out pictures, for the training curve."""
    from vla.evaluation.answering import measure_answers

    return measure_answers(model, rows, questions_per_picture=6).metrics()


def _measure(cfg: PretrainConfig, checkpoint: str) -> dict[str, Any]:
    """Returns the figures of the finished model with their intervals."""
    from vla.checkpoints.answering import load_answerable
    from vla.evaluation.answering import measure_answers
    from vla.training.multimodal import held_out_stills

    rows = held_out_stills(cfg.scenes, cfg.multimodal.final_pictures)
    return measure_answers(load_answerable(Path(checkpoint)), rows).to_dict() if rows else {}


def _retrieval(images: ArrayLike, texts: ArrayLike, among: int) -> dict[str, Any]:
    """Returns R@1 both ways, with intervals."""
    from vla.evaluation.language import retrieval

    found = retrieval(images, texts, among=among)
    return {
        "retrieval": {
            "image_to_text": found.image_to_text.to_dict(),
            "text_to_image": found.text_to_image.to_dict(),
            "among": among,
        }
    }
