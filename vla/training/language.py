"""Stage text: the decoder of a family on the texts of the scenes, as a plain causal language model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from vla.data.token_rows import TokenBatch, TokenBatches
from vla.models.backbones import gemma4_config, paligemma_config, prismatic_config, qwen2_vl_config
from vla.models.config_dict import config_to_dict
from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.initialisation import initialise
from vla.nn.masks import attention_mask, causal_blocks
from vla.training.pretrain import Described, Lesson, newest_checkpoint, run_lesson
from vla.training.pretrain_config import DecoderFamily, PretrainConfig
from vla.training.scene_sources import held_out_corpus, open_rows, scene_corpus, stage_tokenizer
from vla.training.track import Metrics, Tracker


def pretrain_decoder(cfg: PretrainConfig, directory: Path, tracker: Tracker) -> dict[str, Any]:
    """Trains the decoder, and returns the run's summary; checkpoints are of kind "decoder".

    Raises:
        DatasetError: scenes are missing.
        ConfigError: a setting is out of range.
    """
    rows = open_rows(cfg)
    corpus = scene_corpus(rows)
    tokenizer = stage_tokenizer(cfg, newest_checkpoint(cfg, directory), corpus)
    lesson = text_lesson(cfg, corpus, held_out_corpus(rows), tokenizer)
    return run_lesson(lesson, cfg, directory, tracker)


def text_lesson(
    cfg: PretrainConfig, corpus: Sequence[str], held_out: Sequence[str], tokenizer: Tokenizer
) -> Lesson[TokenBatch]:
    """Returns the stage, ready to run: the model new, from the seed of `cfg.training`."""
    torch.manual_seed(cfg.training.seed)
    shape = decoder_config(cfg.text.family, tokenizer.get_vocab_size())
    model = Decoder(shape)
    initialise(model)

    def rows(texts: Sequence[str]) -> TokenBatches:
        return TokenBatches(
            texts,
            tokenizer,
            max_tokens=cfg.text.max_tokens,
            batch_size=cfg.training.batch_size,
            seed=cfg.training.seed,
        )

    examined = rows(held_out[: cfg.text.validation_texts])
    return Lesson(
        model=model,
        objective=LanguageObjective(model=model),
        batches=rows(corpus),
        validate=lambda _: perplexity(model, examined),
        describe=lambda: Described(
            kind="decoder",
            family=cfg.text.family.value,
            config=config_to_dict(shape),
            tensors=model.state_dict(),
            tokenizer=tokenizer,
        ),
    )


def decoder_config(family: DecoderFamily, vocab_size: int) -> DecoderConfig:
    """Returns the shape of a family's tiny decoder, with a head to write with."""
    match family:
        case DecoderFamily.PRISMATIC:
            config = prismatic_config.tiny(vocab_size).decoder
        case DecoderFamily.PALIGEMMA:
            config = paligemma_config.tiny_paligemma(vocab_size).decoder
        case DecoderFamily.QWEN2_VL:
            config = qwen2_vl_config.tiny(vocab_size).decoder
        case DecoderFamily.GEMMA4:
            config = gemma4_config.tiny_gemma4(vocab_size).decoder
    head = Head.TIED if config.head is Head.NONE else config.head
    return replace(config, head=head, vocab_size=vocab_size)


@dataclass(kw_only=True)
class LanguageObjective:
    """The next token's cross-entropy, within each text."""

    model: Decoder

    def __call__(
        self, forward: Callable[..., Any], batch: TokenBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns nats a token."""
        nats, is_asked = next_token_nats(self.model, forward, batch)
        return nats.sum() / is_asked.sum(), {}


def next_token_nats(
    model: Decoder, forward: Callable[..., Any], batch: TokenBatch
) -> tuple[Float[Tensor, "batch asked"], Bool[Tensor, "batch asked"]]:
    """Returns the cross-entropy of every token but the first of a row, and which of them a text continues with.

    Nats are 0 where a new text begins and on padding.
    """
    config, documents = model.config, batch.documents
    valid = documents >= 0
    blocks = causal_blocks(valid)
    near = None
    if config.window is not None:
        near = attention_mask(valid, blocks, window=config.window, documents=documents)
    positions = batch.positions
    if config.rope_sections is not None:
        positions = positions[..., None].expand(*positions.shape, len(config.rope_sections))
    hidden = forward(
        model.embed(batch.ids),
        may_attend=attention_mask(valid, blocks, documents=documents),
        may_attend_near=near,
        positions=positions,
        token_ids=batch.ids,
    )
    is_asked = (documents[:, 1:] == documents[:, :-1]) & valid[:, 1:]
    logits = model.logits(hidden[:, :-1]).float()
    nats = F.cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    return nats.view(is_asked.shape) * is_asked, is_asked


@torch.no_grad()
def perplexity(model: Decoder, rows: TokenBatches) -> Metrics:
    """Returns `loss` in nats a token, its exponential `perplexity`, and `num_tokens`; every text is read once."""
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for batch in rows.once():
        nats, is_asked = next_token_nats(model, model, batch.to(device))
        total, count = total + float(nats.double().sum()), count + int(is_asked.sum())
    mean = total / max(1, count)
    return {"loss": mean, "perplexity": math.exp(mean), "num_tokens": float(count)}
