"""Everything that is chosen about a Prismatic model, and the two shapes that are used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from jaxtyping import UInt8
from torch import Tensor

from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.models.vision.pictures import Pictures
from vla.models.vision.preprocessing import openvla_pictures
from vla.models.vision.vit import ViTConfig
from vla.nn.masks import PrefixAttention


@dataclass(kw_only=True)
class PrismaticConfig:
    """Shape and behaviour of a Prismatic model."""

    image_size: int = 64  # pixels, square
    num_views: int = 2  # pictures a row may show: cameras, in the embodiment's order
    towers: list[ViTConfig] = field(
        default_factory=lambda: [presets.tiny_dinov2(), presets.tiny_siglip()]
    )
    projector_width: int = 384  # hidden width of the connector; OpenVLA: 4 x the fused vision width
    decoder: DecoderConfig = field(default_factory=lambda: decoder_presets.tiny(512))
    attention: PrefixAttention = PrefixAttention.PREFIX_LM

    def __post_init__(self) -> None:
        for name in ("image_size", "num_views", "projector_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1")

    def prepare_pictures(self, pictures: Pictures) -> UInt8[Tensor, "images 3 rows columns"]:
        """Returns pictures (3, rows, columns) of any sizes, uint8, stretched to squares of `image_size`."""
        return openvla_pictures(pictures, self.image_size)


def tiny(
    vocab_size: int,
    *,
    width: int = 192,
    depth: int = 5,
    vision_width: int = 96,
    vision_depth: int = 2,
    patch_size: int = 16,
) -> PrismaticConfig:
    """Returns a model of two to four million parameters for two 64 px cameras, to be trained on a CPU."""
    return PrismaticConfig(
        towers=[
            presets.tiny_dinov2(vision_width, vision_depth, patch_size),
            presets.tiny_siglip(vision_width, vision_depth, patch_size),
        ],
        projector_width=4 * vision_width,
        decoder=replace(decoder_presets.tiny(vocab_size, width, depth), head=Head.TIED),
    )


def openvla_7b() -> PrismaticConfig:
    """Returns the shape of openvla/openvla-7b. Source: its config.json and prismatic/extern/hf at c8f03f4."""
    return PrismaticConfig(
        image_size=224,
        num_views=1,
        towers=[
            presets.dinov2_large_reg4(is_whole=True),
            presets.siglip_so400m(is_whole=True),
        ],
        projector_width=4 * (1024 + 1152),
        decoder=decoder_presets.llama2_7b(),
        attention=PrefixAttention.CAUSAL,
    )
