"""The backbone that a run starts with: a small one of any family, or one that has learnt to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from vla.checkpoints.answering import load_answerable
from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.backbones import prismatic_config, qwen2_vl_config
from vla.models.backbones.families import AnyBackbone, AnyConfig, Family, build_backbone
from vla.models.backbones.gemma4_config import tiny_gemma4
from vla.models.backbones.paligemma_config import tiny_paligemma
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.backbones.variant import Variant, apply_variant
from vla.models.decoder_config import Head
from vla.models.vision import presets
from vla.tokenizers.action_bins import ActionLayout
from vla.tokenizers.action_tokens import text_vocab_size
from vla.tokenizers.prompt_batch import first_id
from vla.tokenizers.prompt_chat import GEMMA4, QWEN2_VL
from vla.tokenizers.scene_vocabulary import PALIGEMMA_IMAGE, train_scene_tokenizer
from vla.tokenizers.text import train_text_tokenizer
from vla.training.config import BackboneConfig
from vla.training.multimodal_model import grown


def small_backbone(
    cfg: BackboneConfig, corpus: Sequence[str], num_views: int, *, answers: bool = False
) -> tuple[AnyBackbone, Tokenizer]:
    """Returns a small model with random weights, from torch's generator, and a tokenizer that knows the corpus.

    Prismatic's has words alone, unless it is to answer questions about scenes; the others' has everything that scenes
    are talked about with, 2048 tokens.
    """
    if cfg.family is Family.PRISMATIC and not answers:
        tokenizer = train_text_tokenizer(corpus, cfg.text_vocab_size)
    else:
        tokenizer = train_scene_tokenizer(corpus)
    config = small_config(cfg, tokenizer)
    if isinstance(config, PrismaticConfig):
        config = replace(config, num_views=num_views)
    if answers and config.decoder.head is Head.NONE:
        config = replace(config, decoder=replace(config.decoder, head=Head.TIED))
    return build_backbone(_with_actions(config, action_config(cfg, tokenizer))), tokenizer


def pretrained_backbone(
    directory: Path, cfg: BackboneConfig, num_views: int, *, keeps_weights: bool = True
) -> tuple[AnyBackbone, Tokenizer]:
    """Returns the model of a checkpoint that answers, ready for as many cameras, and its tokenizer.

    Position tables are interpolated to the run's pictures. Rows for action tokens, and the marks of further views, are
    new. Without `keeps_weights` only the shape is taken: what the same model learns from nothing.
    """
    loaded = load_answerable(directory)
    backbone = grown(loaded.backbone, cfg.image_size)
    config = backbone.config
    if isinstance(config, PrismaticConfig):
        config = replace(config, num_views=num_views)
    config = _with_actions(config, action_config(cfg, loaded.tokenizer))
    fresh = build_backbone(config)
    if keeps_weights:
        _fill(fresh, backbone)
    return fresh, loaded.tokenizer


def action_config(cfg: BackboneConfig, tokenizer: Tokenizer) -> ActionConfig:
    """Returns how a run's model acts; action ids come after all tokens, or are the last of its text."""
    is_fast = cfg.decoding is ActionDecoding.FAST
    is_token_by_token = is_fast or cfg.decoding is ActionDecoding.AUTOREGRESSIVE
    is_last = cfg.layout is ActionLayout.LAST_256 and not is_fast
    return ActionConfig(
        text_vocab_size=text_vocab_size(tokenizer) if is_last else tokenizer.get_vocab_size(),
        layout=cfg.layout,
        num_fast_tokens=cfg.fast_vocab_size if is_fast else 0,
        decoding=cfg.decoding,
        chunk_length=cfg.chunk_length,
        grounding=cfg.grounding and not is_token_by_token,
    )


def small_config(cfg: BackboneConfig, tokenizer: Tokenizer) -> AnyConfig:
    """Returns the shape of a small model, some three million parameters by default, with the run's variant of it."""
    vocab_size = tokenizer.get_vocab_size()
    match cfg.family:
        case Family.PRISMATIC:
            config = prismatic_config.tiny(
                vocab_size,
                width=cfg.width,
                depth=cfg.depth,
                vision_width=cfg.vision_width or 96,
                vision_depth=cfg.vision_depth or 2,
                patch_size=cfg.patch_size,
            )
            config = replace(config, image_size=cfg.image_size)
        case Family.PALIGEMMA:
            config = tiny_paligemma(vocab_size)
            tower = presets.tiny_siglip(
                cfg.vision_width or 128, cfg.vision_depth or 3, cfg.patch_size
            )
            config = replace(
                config,
                image_size=cfg.image_size,
                tower=tower,
                decoder=replace(
                    config.decoder,
                    width=cfg.width,
                    depth=cfg.depth,
                    head_dim=cfg.width // 4,
                    mlp_width=cfg.width * 8 // 3,
                ),
                image_id=first_id(tokenizer, [PALIGEMMA_IMAGE]),
            )
        case Family.QWEN2_VL:
            config = _qwen2_vl(cfg, tokenizer)
        case Family.GEMMA4:
            config = _gemma4(cfg, tokenizer)
    return apply_variant(config, cfg.variant)


def _qwen2_vl(cfg: BackboneConfig, tokenizer: Tokenizer) -> AnyConfig:
    """A token covers 2 x 2 patches."""
    tiny = qwen2_vl_config.tiny(tokenizer.get_vocab_size() - 2)
    shape = decoder_presets.tiny(tokenizer.get_vocab_size(), cfg.width, cfg.depth)
    sizes = {name: getattr(shape, name) for name in ("width", "depth", "mlp_width")}
    heads = {"num_heads": shape.num_heads, "num_kv_heads": shape.num_kv_heads}
    width = cfg.vision_width or 128
    pixels = cfg.image_size**2
    assert QWEN2_VL.video is not None
    return replace(
        tiny,
        tower=replace(
            tiny.tower,
            patch_size=cfg.patch_size // tiny.merge_size,
            width=width,
            depth=cfg.vision_depth or 2,
            num_heads=width // 32,
            mlp_width=4 * width,
        ),
        decoder=replace(tiny.decoder, **sizes, **heads),
        image_id=first_id(tokenizer, [QWEN2_VL.image]),
        video_id=first_id(tokenizer, [QWEN2_VL.video]),
        min_pixels=cfg.patch_size**2,
        max_pixels=pixels,
        min_clip_pixels=cfg.patch_size**2,
        max_clip_pixels=pixels,
    )


def _gemma4(cfg: BackboneConfig, tokenizer: Tokenizer) -> AnyConfig:
    """Woven; a variant may put a tower in, whose patches are half as wide, 2 x 2 of which become one token."""
    tiny = tiny_gemma4(tokenizer.get_vocab_size())
    tiny = apply_variant(tiny, Variant(decoder_depth=cfg.depth))
    config = replace(
        tiny,
        decoder=replace(
            tiny.decoder,
            width=cfg.width,
            head_dim=cfg.width // 4,
            mlp_width=cfg.width * 8 // 3,
        ),
        patch_size=cfg.patch_size,
        patch_width=cfg.vision_width or 192,
        image_id=first_id(tokenizer, [GEMMA4.image]),
        token_budget=(cfg.image_size // cfg.patch_size) ** 2,
    )
    if not cfg.variant.encoder:
        return config
    config = apply_variant(config, Variant(encoder=True))
    assert config.tower is not None
    width = cfg.vision_width or 128
    tower = replace(
        config.tower,
        patch_size=cfg.patch_size // config.pool_size,
        width=width,
        depth=cfg.vision_depth or 2,
        num_heads=width // 32,
        mlp_width=2 * width,
    )
    return replace(config, tower=tower)


def _with_actions[C: AnyConfig](config: C, actions: ActionConfig) -> C:
    """With room for action tokens in the decoder's table."""
    missing = actions.num_token_rows - config.decoder.vocab_size
    if missing <= 0:
        return config
    if config.decoder.per_layer_width:
        raise ConfigError(
            "a decoder with per-layer embeddings has no room for new action tokens; use backbone.layout=last_256, or "
            "a decoding without tokens (parallel, l1, flow)"
        )
    return replace(config, decoder=replace(config.decoder, vocab_size=actions.num_token_rows))


@torch.no_grad()
def _fill(model: AnyBackbone, source: AnyBackbone) -> None:
    """Puts the weights of `source` into `model`, which may have more rows in its tables, and marks of views."""
    given = source.state_dict()
    for name, weight in model.state_dict().items():
        if name in given:
            weight[tuple(slice(size) for size in given[name].shape)].copy_(given[name])
