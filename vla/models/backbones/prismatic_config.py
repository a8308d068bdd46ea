"""Everything that is chosen about a Prismatic model, and the two shapes that are used."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from vla.errors import ConfigError
from vla.models import decoder_presets
from vla.models.config_dict import config_from_dict, config_to_dict
from vla.models.decoder_config import DecoderConfig
from vla.models.vision import presets
from vla.models.vision.vit import ViTConfig
from vla.nn.masks import PrefixAttention
from vla.tokenizers.action_bins import ActionLayout, ActionVocabulary


class ActionDecoding(Enum):
    """How action tokens come out."""

    AUTOREGRESSIVE = "autoregressive"  # one after another, each fed back: OpenVLA
    PARALLEL = "parallel"  # a whole chunk in one forward pass


@dataclass(kw_only=True)
class PrismaticConfig:
    """Shape and behaviour of a Prismatic model."""

    image_size: int = 64  # pixels, square
    num_views: int = 2  # cameras, in the embodiment's order
    towers: list[ViTConfig] = field(
        default_factory=lambda: [presets.tiny_dinov2(), presets.tiny_siglip()]
    )
    projector_width: int = 384  # hidden width of the projector; OpenVLA: 4 x the fused vision width
    text_vocab_size: int = 512  # tokens before any action token is added
    decoder: DecoderConfig = field(default_factory=lambda: decoder_presets.tiny(512))
    attention: PrefixAttention = PrefixAttention.PREFIX_LM
    action_layout: ActionLayout = ActionLayout.PER_DIMENSION
    action_decoding: ActionDecoding = ActionDecoding.PARALLEL
    chunk_length: int = 8  # steps decoded at once
    action_width: int = 7  # numbers an action
    state_width: int = 7  # numbers of proprioception; 0: the model is not told
    grounding: bool = True  # auxiliary outputs that say where the named object is

    def __post_init__(self) -> None:
        for name in ("image_size", "num_views", "chunk_length", "action_width", "projector_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1")
        if self.grounding and self.action_decoding is not ActionDecoding.PARALLEL:
            raise ConfigError(
                "grounding reads the first action slot, and only PARALLEL decoding has slots; "
                "set action_decoding=PARALLEL or grounding=false"
            )
        if self.decoder.vocab_size < self.num_token_rows:
            raise ConfigError(
                f"the decoder embeds {self.decoder.vocab_size} tokens; text_vocab_size {self.text_vocab_size} "
                f"with {self.action_layout.name} action tokens needs {self.num_token_rows}; raise decoder.vocab_size"
            )

    @property
    def is_suffix_parallel(self) -> bool:
        """Whether action slots see each other: in one forward pass, unless attention is CAUSAL throughout."""
        is_parallel = self.action_decoding is ActionDecoding.PARALLEL
        return is_parallel and self.attention is PrefixAttention.PREFIX_LM

    @property
    def num_token_rows(self) -> int:
        """Tokens the decoder must embed: slots are no tokens, so PARALLEL needs the text alone."""
        if self.action_decoding is ActionDecoding.PARALLEL:
            return self.text_vocab_size
        return self.text_vocab_size + self.action_vocabulary().num_new_ids

    def action_vocabulary(self) -> ActionVocabulary:
        """Returns where the ids of action tokens lie."""
        return ActionVocabulary(self.action_layout, self.text_vocab_size, self.action_width)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, strings and lists, for JSON; enum members by name."""
        return config_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PrismaticConfig:
        """Returns the config that `to_dict` wrote; raises ConfigError for a field this version does not know."""
        return config_from_dict(cls, values)


def tiny(
    text_vocab_size: int,
    *,
    width: int = 192,
    depth: int = 5,
    vision_width: int = 96,
    vision_depth: int = 2,
    patch_size: int = 16,
    chunk_length: int = 8,
) -> PrismaticConfig:
    """Returns a model of two to four million parameters for two 64 px cameras, to be trained on a CPU."""
    return PrismaticConfig(
        towers=[
            presets.tiny_dinov2(vision_width, vision_depth, patch_size),
            presets.tiny_siglip(vision_width, vision_depth, patch_size),
        ],
        projector_width=4 * vision_width,
        text_vocab_size=text_vocab_size,
        decoder=decoder_presets.tiny(text_vocab_size, width, depth),
        chunk_length=chunk_length,
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
        text_vocab_size=32000,
        decoder=decoder_presets.llama2_7b(),
        attention=PrefixAttention.CAUSAL,
        action_layout=ActionLayout.LAST_256,
        action_decoding=ActionDecoding.AUTOREGRESSIVE,
        chunk_length=1,
        state_width=0,
        grounding=False,
    )
