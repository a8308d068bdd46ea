"""Stages siglip and clip: a vision tower and a text tower that agree on which caption belongs to which picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from vla.data.caption_pairs import PairBatch, PairBatches
from vla.data.scene_pictures import ScenePictures, gather_pictures
from vla.losses.contrastive import (
    CLIP_LOG_TEMPERATURE,
    clip_loss,
    siglip_loss,
    siglip_loss_distributed,
)
from vla.models.config_dict import config_to_dict
from vla.models.dual_encoder import DualEncoder, DualEncoderConfig, Pairs, tiny_siglip
from vla.models.initialisation import initialise
from vla.models.vision.pictures import normalised
from vla.models.vision.vit_config import ViTConfig
from vla.training.distributed import process_shard
from vla.training.pretrain import Described, Lesson, newest_checkpoint, run_lesson
from vla.training.pretrain_config import ContrastiveConfig, PretrainConfig, Stage
from vla.training.scene_sources import open_rows, scene_corpus, stage_tokenizer
from vla.training.track import Metrics, Tracker

logger = logging.getLogger(__name__)


# Given unit-length embeddings of held-out pictures and of their captions, pool after pool: what the summary says.
Examination = Callable[[NDArray[np.float32], NDArray[np.float32]], dict[str, Any]]


def pretrain_pair(
    cfg: PretrainConfig,
    directory: Path,
    tracker: Tracker,
    examine: Examination = lambda images, texts: {},
) -> dict[str, Any]:
    """Trains the two towers, and returns the run's summary; checkpoints are of kind "picture_text".

    Args:
        cfg: the run.
        directory: for checkpoints.
        tracker: for metrics.
        examine: adds to the summary what is found out about the trained towers.

    Raises:
        DatasetError: scenes are missing.
        ConfigError: a setting is out of range, or captions are too few or too much alike for the batch.
    """
    rows = open_rows(cfg)
    train, held_out = gather_pictures(rows, cfg.image_size)
    tokenizer = stage_tokenizer(cfg, newest_checkpoint(cfg, directory), scene_corpus(rows))
    lesson = pair_lesson(cfg, train, held_out, tokenizer)
    summary = run_lesson(lesson, cfg, directory, tracker)
    assert isinstance(lesson.model, DualEncoder)
    pools = held_out_pools(cfg.contrastive, held_out, tokenizer)
    embedded = [embed(lesson.model, pool) for pool in pools]
    images, texts = (torch.cat(side).cpu().numpy() for side in zip(*embedded, strict=True))
    return summary | examine(images, texts)


def pair_lesson(
    cfg: PretrainConfig, train: ScenePictures, held_out: ScenePictures, tokenizer: Tokenizer
) -> Lesson[PairBatch]:
    """Returns the stage, ready to run: the model new, from the seed of `cfg.training`."""
    torch.manual_seed(cfg.training.seed)
    shape = pair_config(cfg, tokenizer.get_vocab_size())
    model = DualEncoder(shape)
    initialise(model)
    options = cfg.contrastive

    source = PairBatches(
        train,
        tokenizer,
        max_tokens=options.max_text_tokens,
        batch_size=cfg.training.batch_size,
        seed=cfg.training.seed,
        shard=process_shard(),
    )
    if source.share_cut:
        logger.warning(
            "%.1f %% of the captions are longer than contrastive.max_text_tokens=%d and were cut",
            100 * source.share_cut,
            options.max_text_tokens,
        )
    if cfg.stage is Stage.SIGLIP and options.start_bias is None:
        settle_bias(model, source.at(0))
    pools = held_out_pools(options, held_out, tokenizer)
    return Lesson(
        model=model,
        objective=PairObjective(model=model, is_softmax=cfg.stage is Stage.CLIP, cfg=options),
        batches=source,
        validate=lambda _: retrieval(model, pools),
        describe=lambda: Described(
            kind="picture_text",
            family="dual_encoder",
            config=config_to_dict(shape),
            tensors=model.state_dict(),
            tokenizer=tokenizer,
        ),
    )


def held_out_pools(
    cfg: ContrastiveConfig, held_out: ScenePictures, tokenizer: Tokenizer
) -> list[PairBatch]:
    """Returns held-out pairs in pools to search in, always the same ones; captions differ within a pool.

    Raises:
        ConfigError: there are not enough held-out pictures with captions of their own.
    """
    batches = PairBatches(
        held_out, tokenizer, max_tokens=cfg.max_text_tokens, batch_size=cfg.retrieval_pool
    )
    return [batches.at(pool) for pool in range(max(1, cfg.retrieval_queries // cfg.retrieval_pool))]


def pair_config(cfg: PretrainConfig, vocab_size: int) -> DualEncoderConfig:
    """Returns the shape of both towers; the arms differ in the starting temperature and in the bias alone."""
    options = cfg.contrastive
    shape = tiny_siglip(
        vocab_size,
        image_size=cfg.image_size,
        width=cfg.tower.width,
        depth=cfg.tower.depth,
        patch_size=cfg.tower.patch_size,
        text_width=options.text_width,
        text_depth=options.text_depth,
        max_text_tokens=options.max_text_tokens,
    )
    if cfg.stage is Stage.CLIP:
        return replace(shape, log_temperature=CLIP_LOG_TEMPERATURE, logit_bias=None)
    return replace(shape, logit_bias=options.start_bias or 0.0)


@dataclass(kw_only=True)
class PairObjective:
    """The sigmoid or the softmax loss; over the batches of all processes where there are several."""

    model: DualEncoder
    is_softmax: bool
    cfg: ContrastiveConfig

    def __call__(
        self, forward: Callable[..., Any], batch: PairBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss, and the temperature and bias that it learnt."""
        pairs: Pairs = forward(tower_pixels(batch.pictures, self.model.config.vision), batch.ids)
        images, texts = pairs.image_embeddings.float(), pairs.text_embeddings.float()
        with torch.autocast(images.device.type, enabled=False):
            loss = self._loss(images, texts)
        learnt = {"temperature": self.model.log_temperature.detach().exp()}
        if self.model.logit_bias is not None:
            learnt["bias"] = self.model.logit_bias.detach()
        return loss, learnt

    def _loss(self, images: Tensor, texts: Tensor) -> Tensor:
        temperature, bias = self.model.log_temperature, self.model.logit_bias
        if self.is_softmax or bias is None:
            return clip_loss(images, texts, temperature)
        if process_shard()[1] > 1:
            return siglip_loss_distributed(images, texts, temperature, bias)
        return siglip_loss(images, texts, temperature, bias, chunk_size=self.cfg.chunk_size)


@torch.no_grad()
def settle_bias(model: DualEncoder, batch: PairBatch) -> None:
    """Sets the bias so that an untrained model gives every pair of the batch the chance that it is a right one.

    Untrained towers give all pictures nearly the same vector, and all captions. Where the bias does not fit, the
    quickest way down is to move these two vectors against each other, and everything is made alike before anything is
    told apart. SigLIP's -10 is right for cosines about 0 and batches of some 20,000.
    """
    assert model.logit_bias is not None
    pairs = model(tower_pixels(batch.pictures, model.config.vision), batch.ids)
    typical = float((pairs.logits - model.logit_bias).mean())
    odds = 1 / max(1, len(batch.ids) * process_shard()[1] - 1)
    model.logit_bias.fill_(math.log(odds) - typical)


@torch.no_grad()
def retrieval(model: nn.Module, pools: list[PairBatch]) -> Metrics:
    """Returns how often the right one comes first: captions for a picture, and pictures for a caption.

    `image_to_text_r1` and `text_to_image_r1` over all pools, `num_queries` each way, `loss_nats` a pair's own
    cross-entropy among its pool at the learnt temperature.
    """
    assert isinstance(model, DualEncoder)
    model.eval()
    device = next(model.parameters()).device
    sums = {"image_to_text_r1": 0.0, "text_to_image_r1": 0.0, "loss_nats": 0.0}
    num_queries = 0
    for pool in pools:
        images, texts = embed(model, pool)
        cosine = images @ texts.T
        own = torch.arange(len(cosine), device=device)
        sums["image_to_text_r1"] += int((cosine.argmax(dim=1) == own).sum())
        sums["text_to_image_r1"] += int((cosine.argmax(dim=0) == own).sum())
        logits = cosine * math.exp(float(model.log_temperature))
        sums["loss_nats"] += float(nn.functional.cross_entropy(logits, own, reduction="sum"))
        num_queries += len(own)
    return {name: total / num_queries for name, total in sums.items()} | {
        "num_queries": float(num_queries)
    }


@torch.no_grad()
def embed(
    model: DualEncoder, pool: PairBatch
) -> tuple[Float[Tensor, "pairs width"], Float[Tensor, "pairs width"]]:
    """Returns unit-length embeddings of a pool's pictures and of its captions."""
    pool = pool.to(next(model.parameters()).device)
    pairs: Pairs = model(tower_pixels(pool.pictures, model.config.vision), pool.ids)
    return pairs.image_embeddings.float(), pairs.text_embeddings.float()


def tower_pixels(
    pictures: UInt8[Tensor, "batch 3 rows columns"], config: ViTConfig
) -> Float[Tensor, "batch 3 rows columns"]:
    """Returns pictures normalised as the tower wants them."""
    return normalised(pictures.movedim(1, -1), config.pixel_mean, config.pixel_std).movedim(-1, 1)
