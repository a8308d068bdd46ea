"""What an experiment changes about a backbone: one switch at a time, all else as the family has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum

from vla.errors import ConfigError, unknown_name
from vla.models.backbones.gemma4_config import Gemma4Config, tiny_gemma4_encoder
from vla.models.backbones.paligemma_config import PaliGemmaConfig
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.models.backbones.qwen2_vl_config import Qwen2VLConfig
from vla.models.connectors import ConnectorKind
from vla.models.decoder_config import DecoderConfig
from vla.models.vision.vit_config import ViTConfig
from vla.nn.masks import PrefixAttention


class TowerName(Enum):
    """The towers that a Prismatic can have."""

    DINOV2 = "dinov2"
    SIGLIP = "siglip"


class TowerRope(Enum):
    """What turns queries and keys in a tower without a position table."""

    ROWS_AND_COLUMNS = "rows_and_columns"  # 2-D: half the channels by each
    RASTER = "raster"  # 1-D: the patch's number, counted row after row


@dataclass(kw_only=True)
class Variant:
    """Switches, applied in this order; null leaves what the family has. The comment says whose they are."""

    encoder: bool | None = None  # gemma4; true: with a tower, false: woven
    decoder_depth: int | None = None  # blocks; all families
    tower_depth: int | None = None  # blocks of each tower; families with towers
    towers: list[TowerName] | None = None  # prismatic
    attention: PrefixAttention | None = None  # prismatic, paligemma
    connector: ConnectorKind | None = None  # paligemma
    pictures_apart: bool | None = None  # paligemma
    tower_rope: TowerRope | None = None  # qwen2_vl
    mrope: bool | None = None  # qwen2_vl; false: positions count tokens
    fixed_size: int | None = None  # qwen2_vl; pixels: pictures are stretched to this square first


AnyConfig = PrismaticConfig | PaliGemmaConfig | Qwen2VLConfig | Gemma4Config


def apply_variant[C: AnyConfig](config: C, variant: Variant) -> C:
    """Returns `config` with the switches that are set.

    Raises:
        ConfigError: a switch that this family does not have, or a value that it cannot take.
    """
    known = _switches(config)
    for field in fields(Variant):
        value = getattr(variant, field.name)
        if value is None:
            continue
        if field.name not in known:
            family = type(config).__name__.removesuffix("Config")
            raise ConfigError(f"{family}: {unknown_name('switch', field.name, known)}")
        config = known[field.name](config, value)
    return config


def _switches(config: AnyConfig) -> dict[str, Callable]:
    match config:
        case PrismaticConfig():
            return {
                "decoder_depth": _decoder_depth,
                "tower_depth": lambda c, n: replace(c, towers=[_deep(t, n) for t in c.towers]),
                "towers": _towers,
                "attention": lambda c, kind: replace(c, attention=kind),
            }
        case PaliGemmaConfig():
            return {
                "decoder_depth": _decoder_depth,
                "tower_depth": lambda c, n: replace(c, tower=_deep(c.tower, n)),
                "attention": lambda c, kind: replace(c, attention=kind),
                "connector": lambda c, kind: replace(c, connector=kind),
                "pictures_apart": lambda c, apart: replace(c, pictures_apart=apart),
            }
        case Qwen2VLConfig():
            return {
                "decoder_depth": _decoder_depth,
                "tower_depth": lambda c, n: replace(c, tower=_deep(c.tower, n)),
                "tower_rope": _tower_rope,
                "mrope": _mrope,
                "fixed_size": _fixed_size,
            }
        case Gemma4Config():
            return {
                "encoder": _encoder,
                "decoder_depth": _decoder_depth,
                "tower_depth": _gemma4_tower_depth,
            }


def _deep(tower: ViTConfig, depth: int) -> ViTConfig:
    return replace(tower, depth=depth, output_block=-1)


def _decoder_depth(config: AnyConfig, depth: int) -> AnyConfig:
    return replace(config, decoder=_deep_decoder(config.decoder, depth))


def _deep_decoder(decoder: DecoderConfig, depth: int) -> DecoderConfig:
    """With full layers as far apart as they were, and the last one full as before."""
    if not decoder.full_layers:
        return replace(decoder, depth=depth)
    every = decoder.full_layers[0] + 1
    full = sorted({*range(every - 1, depth, every), depth - 1})
    return replace(decoder, depth=depth, full_layers=full)


def _towers(config: PrismaticConfig, names: list[TowerName]) -> PrismaticConfig:
    """DINOv2 has a class token, SigLIP has none."""
    known = {
        TowerName.DINOV2 if tower.has_class_token else TowerName.SIGLIP: tower
        for tower in config.towers
    }
    if not names:
        raise ConfigError("towers = []; name dinov2, siglip or both")
    return replace(config, towers=[tower for name, tower in known.items() if name in names])


def _tower_rope(config: Qwen2VLConfig, kind: TowerRope) -> Qwen2VLConfig:
    tower = replace(config.tower, rope_is_raster=kind is TowerRope.RASTER)
    return replace(config, tower=tower)


def _mrope(config: Qwen2VLConfig, is_on: bool) -> Qwen2VLConfig:
    if is_on == (config.decoder.rope_sections is not None):
        return config
    if is_on:
        raise ConfigError("mrope = true needs decoder.rope_sections; this model has none")
    return replace(config, decoder=replace(config.decoder, rope_sections=None, rope_is_apart=False))


def _fixed_size(config: Qwen2VLConfig, size: int) -> Qwen2VLConfig:
    """A square of that many pixels must lie within the bounds, or it would be resized once more."""
    low, high = min(config.min_pixels, size**2), max(config.max_pixels, size**2)
    clips = min(config.min_clip_pixels, size**2), max(config.max_clip_pixels, size**2)
    return replace(
        config,
        fixed_size=size,
        min_pixels=low,
        max_pixels=high,
        min_clip_pixels=clips[0],
        max_clip_pixels=clips[1],
    )


def _encoder(config: Gemma4Config, has_one: bool) -> Gemma4Config:
    """A token covers as many pixels with a tower as without."""
    if has_one == (config.tower is not None):
        return config
    if not has_one:
        raise ConfigError("encoder = false takes no tower away; start from the woven form")
    example = tiny_gemma4_encoder()
    assert example.tower is not None
    tower = replace(example.tower, patch_size=config.patch_size // example.pool_size)
    return replace(config, tower=tower, pool_size=example.pool_size)


def _gemma4_tower_depth(config: Gemma4Config, depth: int) -> Gemma4Config:
    if config.tower is None:
        raise ConfigError("tower_depth: the woven Gemma4 has no tower; set encoder=true as well")
    return replace(config, tower=_deep(config.tower, depth))
