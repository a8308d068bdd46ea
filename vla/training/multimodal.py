"""Stages multimodal and transfer: a model that answers in words, boxes and masks, by the loss on its answers alone.

Stage 2 usually freezes the tower (`training.frozen_parts=[vision]`) and trains connector and decoder; PaliGemma's own
recipe trains all (`frozen_parts=[]`). Stage 3 starts from such a model at a higher resolution.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from vla.checkpoints.answering import KIND, Answerable, load_answerable
from vla.checkpoints.mask_codec import load_mask_codec
from vla.checkpoints.parts import load_parts
from vla.data.multimodal import (
    MultimodalBatch,
    MultimodalBatches,
    QuestionConfig,
    label_pictures,
)
from vla.data.scene_pictures import HELD_OUT_SEED
from vla.data.scene_rows import SceneRow
from vla.data.scene_tasks import LabelledPicture
from vla.data.scenes import open_scenes
from vla.errors import ConfigError, DatasetError
from vla.losses.joint import joint_loss
from vla.losses.places import answer_nats, mean_of_answers, pointing_nats, smooth_locations
from vla.losses.suffix import Mean
from vla.models.answering import Answering, AnswerLogits, can_share_pictures
from vla.models.backbones.families import AnyBackbone, build_backbone, family_of
from vla.models.backbones.variant import apply_variant
from vla.models.config_dict import config_to_dict
from vla.models.initialisation import STANDARD_DEVIATION
from vla.tokenizers.loc_seg import (
    CODEWORD_TOKENS,
    LOCATION_TOKENS,
    NUM_CODEWORDS,
    NUM_LOCATIONS,
)
from vla.tokenizers.prompt_answer import AnswerPrompts
from vla.training.multimodal_config import MultimodalStageConfig
from vla.training.multimodal_model import grown, new_config, parts_of, square_size
from vla.training.pretrain import Described, Lesson, newest_checkpoint, run_lesson
from vla.training.pretrain_config import PretrainConfig, Stage
from vla.training.scene_sources import scene_corpus, stage_tokenizer
from vla.training.stages import freeze
from vla.training.track import Metrics, Tracker

logger = logging.getLogger(__name__)

_NUM_SIDES = 4  # of a box: the first tokens of an answer that locates something


# Asks a student about held-out pictures; generating and scoring live on other floors, so the command line passes it.
Examine = Callable[[Answerable, Sequence[SceneRow]], Metrics]


class SceneFolders:
    """All rows of several folders, read one after the other each time they are gone through.

    Raises:
        DatasetError: no folder is given, or one cannot be read.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        if not roots:
            raise DatasetError("no scenes given; name one or more folders with scenes=[PATH,...]")
        self._scenes = [open_scenes(Path(root).expanduser()) for root in roots]

    def __iter__(self) -> Iterator[SceneRow]:
        return chain.from_iterable(self._scenes)


def pretrain_multimodal(
    cfg: PretrainConfig, directory: Path, tracker: Tracker, examine: Examine | None = None
) -> dict[str, Any]:
    """Trains stage 2 or 3, and returns the run's summary; checkpoints are of kind "vlm".

    Args:
        examine: measures generated answers on held-out pictures, beside the loss.

    Raises:
        DatasetError: scenes are missing.
        CheckpointError: a part to start from cannot be used.
        ConfigError: a setting is out of range.
    """
    rows = SceneFolders(cfg.scenes)
    student = new_student(cfg, newest_checkpoint(cfg, directory), rows)
    return run_lesson(multimodal_lesson(cfg, student, rows, examine), cfg, directory, tracker)


def held_out_stills(roots: Sequence[str], count: int) -> list[SceneRow]:
    """Returns the first `count` held-out pictures of these folders: those that are asked about."""
    return _held_out_stills(SceneFolders(roots), count)


def multimodal_lesson(
    cfg: PretrainConfig,
    student: Answerable,
    rows: Iterable[SceneRow],
    examine: Examine | None = None,
) -> Lesson[MultimodalBatch]:
    """Returns the stage, ready to run."""
    options, backbone = cfg.multimodal, student.backbone
    pictures = label_pictures(
        rows,
        image_size=square_size(backbone.config),
        encode_masks=None if student.codec is None else student.codec.encode,
        has_clips=not _held_out_stills(rows, 1),  # scenes of nothing but clips
    )
    questions = QuestionConfig(
        tasks_per_picture=options.tasks_per_picture,
        weights=options.weights,
        is_packed=options.is_packed and can_share_pictures(backbone),
    )

    def batches(is_held_out: bool, size: int) -> MultimodalBatches:
        return question_batches(
            pictures,
            student.prompts,
            backbone,
            questions,
            is_held_out=is_held_out,
            batch_size=size,
            seed=cfg.training.seed,
        )

    examined = _held_out_stills(rows, options.measured_pictures) if examine is not None else []
    train, held_out = batches(False, cfg.training.batch_size), batches(True, 16)
    if options.pointing_weight and square_size(backbone.config) is None:
        raise ConfigError(
            f"multimodal.pointing_weight = {options.pointing_weight}: {options.family.value} reads pictures of any "
            "shape, and pointing needs a square; set it to 0"
        )
    answering = Answering(backbone, points=options.pointing_weight > 0)
    freeze(answering, cfg.training.frozen_parts, parts_of(backbone))
    objective = AnswerObjective(cfg=options, tokenizer=student.tokenizer)

    def validate(_: nn.Module) -> Metrics:
        metrics = answer_loss(answering, objective, held_out, cfg.training.validation_batches)
        if examine is not None:
            metrics |= examine(student, examined)
        return metrics

    return Lesson(
        model=answering,
        objective=objective,
        batches=train,
        validate=validate,
        describe=lambda: described(student),
    )


def question_batches(
    pictures: Sequence[LabelledPicture],
    prompts: AnswerPrompts,
    backbone: AnyBackbone,
    cfg: QuestionConfig,
    *,
    is_held_out: bool,
    batch_size: int,
    seed: int,
) -> MultimodalBatches:
    """Returns questions about the pictures that are trained on, or about those that never are.

    Args:
        pictures: of both; objects that are asked for in vain come from all of them.
        prompts: of the model that is asked.
        backbone: of that model.
        cfg: which questions, and how many a picture.
        is_held_out: whether the scenes are those of seeds from 1,000,000 on.
        batch_size: pictures of a batch.
        seed: of the order of pictures and of the questions.

    Raises:
        DatasetError: no picture is of this kind.
    """
    chosen = [p for p in pictures if (p.scene_seed >= HELD_OUT_SEED) == is_held_out]
    if not chosen:
        where = f"from {HELD_OUT_SEED:,} on" if is_held_out else f"below {HELD_OUT_SEED:,}"
        raise DatasetError(f"no picture has a scene seed {where}; collect scenes of both")
    return MultimodalBatches(
        chosen,
        prompts,
        backbone.num_image_tokens,
        batch_size=batch_size,
        names=sorted({item.name for picture in pictures for item in picture.objects}),
        seed=seed,
        cfg=cfg,
    )


@dataclass(kw_only=True)
class AnswerObjective:
    """Cross-entropy of the answers' tokens, the suffix; and pointing, where the config wants it."""

    cfg: MultimodalStageConfig
    tokenizer: Tokenizer

    def __call__(
        self, forward: Callable[..., Any], batch: MultimodalBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum and the unweighted terms by name, all scalars."""
        output: AnswerLogits = forward(
            batch.ids, batch.valid, batch.suffix_mask, batch.pictures, batch.documents
        )
        nats = answer_nats(
            output.logits,
            output.ids,
            first_location=self.tokenizer.token_to_id(LOCATION_TOKENS[0]),
            num_locations=NUM_LOCATIONS,
            sigma=self.cfg.location_sigma,
        )
        nats = torch.where(self._is_location(output.ids), self.cfg.location_weight * nats, nats)
        is_by_answer = self.cfg.loss_mean is Mean.EXAMPLES
        terms = {"answer": mean_of_answers(nats, output.answers) if is_by_answer else nats.mean()}
        if output.pointing is not None and batch.boxes is not None:
            terms["pointing"] = pointing_nats(output.pointing, self._boxes(output, batch.boxes))
        if self.cfg.z_weight:
            terms["z"] = output.logits.float().logsumexp(dim=-1).square().mean()
        weights = {
            "answer": 1.0,
            "pointing": self.cfg.pointing_weight,
            "z": self.cfg.z_weight,
        }
        return joint_loss(terms, weights), terms

    def _is_location(self, ids: Tensor) -> Tensor:
        offsets = ids - self.tokenizer.token_to_id(LOCATION_TOKENS[0])
        return (offsets >= 0) & (offsets < NUM_LOCATIONS)

    def _boxes(self, output: AnswerLogits, boxes: Tensor) -> Tensor:
        """Returns the box that each token speaks of (tokens, 4): its sides, or its mask; else -1."""
        is_new = torch.ones_like(output.answers)
        is_new[1:] = output.answers[1:] != output.answers[:-1]
        order = torch.arange(len(is_new), device=is_new.device)
        rank = order - torch.where(is_new > 0, order, 0).cummax(dim=0).values
        first_codeword = self.tokenizer.token_to_id(CODEWORD_TOKENS[0])
        offsets = output.ids - first_codeword
        is_codeword = (offsets >= 0) & (offsets < NUM_CODEWORDS)
        speaks = (rank < _NUM_SIDES) | is_codeword  # of the object that is named first
        return torch.where(speaks[:, None], boxes[output.answers], -1.0)


@torch.no_grad()
def answer_loss(
    model: Answering, objective: AnswerObjective, batches: MultimodalBatches, num_batches: int
) -> Metrics:
    """Returns the mean loss, and the share of answer tokens that came first, over the first held-out batches."""
    model.eval()
    device = next(model.parameters()).device
    losses: list[float] = []
    hits = total = 0
    for step in range(min(num_batches, batches.len_epoch)):
        batch = batches.at(step).to(device)
        kept: list[AnswerLogits] = []

        def forward(*arguments: Any, kept: list[AnswerLogits] = kept) -> AnswerLogits:
            kept.append(model(*arguments))
            return kept[0]

        loss, _ = objective(forward, batch)
        losses.append(float(loss))
        hits += int((kept[0].logits.argmax(dim=-1) == kept[0].ids).sum())
        total += len(kept[0].ids)
    return {"loss": sum(losses) / len(losses), "token_accuracy": hits / total}


def new_student(cfg: PretrainConfig, newest: Path | None, rows: Iterable[SceneRow]) -> Answerable:
    """Returns what the stage begins with: a checkpoint to go on with, another model, parts, or random weights.

    Raises:
        CheckpointError: a checkpoint that is named cannot be used.
        ConfigError: stage 3 is given no model to start from.
    """
    options = cfg.multimodal
    torch.manual_seed(cfg.training.seed)
    if newest is not None:
        return load_answerable(newest)
    codec = load_mask_codec(Path(options.mask_codec).expanduser()) if options.mask_codec else None
    if options.init_from:
        student = load_answerable(Path(options.init_from).expanduser())
        student.backbone = grown(student.backbone, cfg.image_size)
        student.codec = codec or student.codec
        return student
    if cfg.stage is Stage.TRANSFER:
        raise ConfigError(
            "stage 3 goes on from a model that answers already; name it with multimodal.init_from=CHECKPOINT"
        )
    tokenizer = stage_tokenizer(cfg, None, scene_corpus(rows))
    shape = new_config(options.family, tokenizer, cfg.image_size, cfg.tower)
    backbone = build_backbone(apply_variant(shape, options.variant))
    paths = [Path(path).expanduser() for path in options.vision_from]
    decoder = Path(options.decoder_from).expanduser() if options.decoder_from else None
    if options.smooth_locations:
        _smooth_locations(backbone, tokenizer)
    if paths or decoder:
        load_parts(backbone, vision=paths, decoder=decoder)
    return Answerable(
        backbone=backbone,
        tokenizer=tokenizer,
        prompts=AnswerPrompts(tokenizer, options.family, options.system_text),
        codec=codec,
        max_instruction_tokens=options.max_instruction_tokens,
    )


@torch.no_grad()
def _smooth_locations(backbone: AnyBackbone, tokenizer: Tokenizer) -> None:
    table = backbone.decoder.token_embedding.weight
    first = tokenizer.token_to_id(LOCATION_TOKENS[0])
    rows = smooth_locations(NUM_LOCATIONS, table.shape[1], 2 * STANDARD_DEVIATION)
    table[first : first + NUM_LOCATIONS] = rows


def described(student: Answerable) -> Described:
    """Returns what a checkpoint of the student holds."""
    config = student.backbone.config
    return Described(
        kind=KIND,
        family=family_of(config).value,
        config=config_to_dict(config),
        tensors=student.tensors(),
        tokenizer=student.tokenizer,
        more=student.described(),
    )


def _held_out_stills(rows: Iterable[SceneRow], count: int) -> list[SceneRow]:
    stills = (row for row in rows if row.scene_seed >= HELD_OUT_SEED and row.kind == "still")
    return list(islice(stills, count))
