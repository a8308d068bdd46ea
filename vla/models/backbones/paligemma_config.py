"""Everything that is chosen about a PaliGemma, and the released shapes."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import UInt8
from torch import Tensor

from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.connectors import ConnectorKind
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision import presets
from vla.models.vision.pictures import Pictures
from vla.models.vision.preprocessing import openvla_pictures
from vla.models.vision.vit_config import ViTConfig
from vla.nn.masks import PrefixAttention
from vla.nn.mlp import Activation
from vla.nn.norms import Norm


def _tower() -> ViTConfig:
    return presets.siglip_so400m_released(has_attention_pool=False)


@dataclass(kw_only=True)
class PaliGemmaConfig:
    """Shape of a PaliGemma, 1 or 2; the defaults are google/paligemma-3b-pt-224."""

    image_size: int = 224  # pixels, square
    tower: ViTConfig = field(default_factory=_tower)
    decoder: DecoderConfig = field(default_factory=decoder_presets.gemma_2b)
    image_id: int = 257152  # stands in the prompt once for every image token
    connector: ConnectorKind = ConnectorKind.LINEAR
    attention: PrefixAttention = PrefixAttention.PREFIX_LM  # CAUSAL: no release, see what it costs
    pictures_apart: bool = False  # image tokens see no words: many questions can share a picture

    def __post_init__(self) -> None:
        if self.image_size < 1 or self.image_size % self.tower.patch_size:
            raise ConfigError(
                f"image_size = {self.image_size}; the tower cuts patches of {self.tower.patch_size} px, "
                "so it must be a positive multiple of that"
            )

    @property
    def num_image_tokens(self) -> int:
        """Image tokens of each picture: one a patch."""
        return (self.image_size // self.tower.patch_size) ** 2

    def prepare_pictures(self, pictures: Pictures) -> UInt8[Tensor, "images 3 rows columns"]:
        """Returns pictures (3, rows, columns) of any sizes, uint8, stretched to squares of `image_size`."""
        return openvla_pictures(pictures, self.image_size)


def paligemma_3b(image_size: int = 224) -> PaliGemmaConfig:
    """Returns google/paligemma-3b-pt-{224,448,896}: 256, 1024 or 4096 image tokens.

    Source: transformers convert_paligemma_weights_to_hf.py. The image token is 257152, and the table of 257154 rows
    is filled up to a multiple of 64.
    """
    return PaliGemmaConfig(image_size=image_size)


def paligemma2_3b(image_size: int = 224) -> PaliGemmaConfig:
    """Returns google/paligemma2-3b-pt-{224,448,896}, which has Gemma 2 2B as its decoder.

    Source: transformers convert_paligemma2_weights_to_hf.py, variant "2b". Not compared with the hub: that the table
    is filled up as in `paligemma_3b`.
    """
    return PaliGemmaConfig(image_size=image_size, decoder=decoder_presets.gemma2_2b())


def tiny_paligemma(vocab_size: int = 512) -> PaliGemmaConfig:
    """Returns a PaliGemma of some two million parameters for pictures of 64 px, to be trained on a CPU.

    Its image token is the last of the vocabulary.
    """
    return PaliGemmaConfig(
        image_size=64,
        tower=presets.tiny_siglip(128, 4, 8),
        decoder=DecoderConfig(
            vocab_size=vocab_size,
            width=192,
            depth=4,
            num_heads=4,
            num_kv_heads=1,
            head_dim=48,
            mlp_width=512,
            activation=Activation.GELU_TANH,
            head=Head.TIED,
            norm=Norm.RMS_OFFSET,
            scales_embedding=True,
        ),
        image_id=vocab_size - 1,
    )
