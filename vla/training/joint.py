"""Words and actions learnt together: what keeps a model able to answer while it learns to act.

Robot frames go through the action head, scenes through the head over words; both losses go into one backward pass
(RT-2's co-fine-tuning, Brohan et al. 2023). With scenes and a scene fraction of 0 only actions are learnt, and the loss
on held-out scenes tells how much of the answers is forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from vla.checkpoints.mask_codec import load_mask_codec
from vla.data.collate import Batches, TrainBatch
from vla.data.joint_batches import JointBatch, JointBatches, split_rows
from vla.data.multimodal import (
    EncodeMasks,
    MultimodalBatch,
    MultimodalBatches,
    QuestionConfig,
    label_pictures,
)
from vla.data.scene_rows import SceneRow
from vla.errors import ConfigError
from vla.losses.joint import joint_loss
from vla.models.answering import Answering, can_share_pictures
from vla.models.backbones.families import AnyBackbone, family_of
from vla.tokenizers.prompt_answer import AnswerPrompts
from vla.training.config import DataConfig, LossConfig, RunConfig
from vla.training.loop import BatchSource, TrainingObjective
from vla.training.multimodal import (
    AnswerObjective,
    SceneFolders,
    answer_loss,
    question_batches,
)
from vla.training.multimodal_config import MultimodalStageConfig
from vla.training.multimodal_model import square_size
from vla.training.objective import Objective
from vla.training.scene_sources import scene_corpus
from vla.training.track import Metrics

logger = logging.getLogger(__name__)

_VALIDATION_ROWS = 16


@dataclass(kw_only=True)
class Words:
    """A backbone as it is asked about scenes.

    Attributes:
        answering: shares its weights with the model that acts.
        train: None where nothing but measuring is wanted.
        held_out: scenes that are never trained on.
    """

    answering: Answering
    objective: AnswerObjective
    train: MultimodalBatches | None
    held_out: MultimodalBatches

    def measure(self, num_batches: int) -> Metrics:
        """Returns `text_loss`, in nats, and `text_token_accuracy` over the first held-out batches."""
        found = answer_loss(self.answering, self.objective, self.held_out, num_batches)
        return {f"text_{name}": value for name, value in found.items()}


@dataclass(kw_only=True)
class JointObjective:
    """The terms of the action head, and the answers' cross-entropy as the term "text"."""

    robot: Objective
    words: Words
    text_weight: float

    def __call__(
        self, forward: Callable[..., Any], batch: JointBatch[TrainBatch, MultimodalBatch]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum and the unweighted terms by name, all scalars."""
        acting, terms = self.robot(forward, batch.robot)
        answering, _ = self.words.objective(self.words.answering, batch.scenes)
        both = {"acting": acting, "text": answering}
        loss = joint_loss(both, {"acting": 1.0, "text": self.text_weight})
        return loss, {**terms, "text": answering}


def words_of_scenes(cfg: DataConfig) -> list[str]:
    """Returns the sentences of a run's scenes that are trained on, for its tokenizer; none without scenes."""
    return scene_corpus(SceneFolders(cfg.scenes)) if cfg.scenes else []


def ask_about_scenes(cfg: RunConfig, backbone: AnyBackbone, tokenizer: Tokenizer) -> Words | None:
    """Returns the run's scenes as `backbone` is asked about them; None where there are none.

    Raises:
        ConfigError: a share of every batch is to be scenes, and there are none.
        CheckpointError, DatasetError: as `open_words`; or the mask codec cannot be read.
    """
    data = cfg.data
    _, num_rows = split_rows(cfg.training.batch_size, data.scene_fraction)
    if not data.scenes:
        if num_rows:
            raise ConfigError(
                f"data.scene_fraction = {data.scene_fraction}, but there are no scenes; name folders of labelled "
                "scenes with data.scenes=[PATH,...] or leave the fraction at 0"
            )
        return None
    codec = load_mask_codec(Path(data.mask_codec).expanduser()) if data.mask_codec else None
    return open_words(
        SceneFolders(data.scenes),
        backbone,
        tokenizer,
        data,
        num_rows=num_rows,
        seed=cfg.training.seed,
        encode_masks=None if codec is None else codec.encode,
    )


def joined(
    robot: Objective, batches: Batches, words: Words | None, cfg: LossConfig
) -> tuple[TrainingObjective[Any], BatchSource[Any]]:
    """Returns what is trained on what: actions alone where no words are trained, else both."""
    if words is None or words.train is None:
        return robot, batches
    both = JointObjective(robot=robot, words=words, text_weight=cfg.text_weight)
    return both, JointBatches(batches, words.train)


def open_words(
    rows: Iterable[SceneRow],
    backbone: AnyBackbone,
    tokenizer: Tokenizer,
    cfg: DataConfig,
    *,
    num_rows: int,
    seed: int,
    encode_masks: EncodeMasks | None = None,
) -> Words:
    """Returns a backbone that is asked about scenes.

    Args:
        rows: of labelled scenes, both to train on and held out.
        backbone: of the model that acts.
        tokenizer: the model's, with the tokens of `train_scene_tokenizer`.
        num_rows: pictures of every training batch; 0 to measure only.
        seed: of the order of pictures and of the questions.
        encode_masks: a codec's, to ask for masks too.

    Raises:
        CheckpointError: the tokenizer has no tokens for places, or for the family's pictures.
        DatasetError: there are no scenes to train on, or none held out.
    """
    pictures = label_pictures(
        rows, image_size=square_size(backbone.config), encode_masks=encode_masks
    )
    prompts = AnswerPrompts(tokenizer, family_of(backbone.config))

    is_packed = can_share_pictures(backbone)
    if cfg.questions_per_picture > 1 and not is_packed:
        logger.info("pictures look at the words behind them: one question a picture")
    questions = QuestionConfig(
        tasks_per_picture=cfg.questions_per_picture if is_packed else 1, is_packed=is_packed
    )

    def batches(is_held_out: bool, batch_size: int) -> MultimodalBatches:
        return question_batches(
            pictures,
            prompts,
            backbone,
            questions,
            is_held_out=is_held_out,
            batch_size=batch_size,
            seed=seed,
        )

    return Words(
        answering=Answering(backbone),
        objective=AnswerObjective(cfg=MultimodalStageConfig(), tokenizer=tokenizer),
        train=batches(False, num_rows) if num_rows else None,
        held_out=batches(True, _VALIDATION_ROWS),
    )
