"""Prismatic, OpenVLA's kind of vision-language-action model (Karamcheti et al. 2024; Kim et al. 2024).

Sequence, left to right; T counts the text tokens with BOS and padding, N the image tokens of a view:

    prefix   BOS | view 1: N image tokens | view 2 ... | text tokens 1..T-1, right-padded | proprioception (0 or 1)
    suffix   AUTOREGRESSIVE: the action tokens, K steps x A numbers, read one after another
             PARALLEL:       learned slots, all in one forward pass; logits come from the slots themselves

Padding takes no position and is attended by nobody, so a padded row equals the same row without padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from vla.models.action_heads import GroundingHead, ParallelActionHead
from vla.models.backbones.prismatic_config import ActionDecoding, PrismaticConfig, initialise
from vla.models.connectors import FusedMLPProjector
from vla.models.decoder import Decoder
from vla.models.vision.fused import FusedTowers
from vla.nn.kv_cache import KVCache
from vla.nn.masks import attention_mask, sequence_blocks
from vla.nn.mlp import Activation, PlainMLP
from vla.nn.positions import positions_from_valid
from vla.tokenizers.action_bins import NUM_BINS


@dataclass(kw_only=True)
class PrismaticOutput:
    """What one forward pass says.

    Attributes:
        action_logits: (batch, steps, dims, 256) over the bins of every action number.
        token_logits: (batch, steps * dims, vocabulary) over all tokens; AUTOREGRESSIVE only.
        pointing_logits: (batch, views, patches) where the named object is; with `grounding` only.
        target_from_tool_dm: (batch, 3) offset to the named object in decimetres; with `grounding` only.
    """

    action_logits: Tensor
    token_logits: Tensor | None = None
    pointing_logits: Tensor | None = None
    target_from_tool_dm: Tensor | None = None


class Prismatic(nn.Module):
    """Two vision towers, a projector, a decoder, and the head its action decoding asks for."""

    def __init__(self, config: PrismaticConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder.width
        self.vision = FusedTowers(config.towers, config.image_size)
        self.projector = FusedMLPProjector(self.vision.width, config.projector_width, width)
        self.decoder = Decoder(config.decoder)
        self.proprio = PlainMLP(config.state_width, width, Activation.GELU, out_width=width) if config.state_width else None
        self.action_vocabulary = config.action_vocabulary()
        self.action_head = self.lm_head = None
        if config.action_decoding is ActionDecoding.PARALLEL:
            self.action_head = ParallelActionHead(
                width, layout=config.action_layout, chunk_length=config.chunk_length, action_width=config.action_width
            )  # fmt: skip
        else:
            self.lm_head = nn.Linear(width, config.decoder.vocab_size, bias=False)
        self.grounding_head = GroundingHead(width) if config.grounding else None
        initialise(self)

    def forward(
        self,
        images: UInt8[Tensor, "batch views 3 height width"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
        action_bins: Int[Tensor, "batch steps dims"] | None = None,
    ) -> PrismaticOutput:
        """Returns logits of a whole chunk.

        Args:
            images: pictures of each view, 0..255.
            text_ids: prompt with BOS first, right-padded.
            text_valid: True for tokens of the prompt.
            state: normalised proprioception; needed when `state_width` > 0.
            action_bins: the true bins, fed to the decoder when AUTOREGRESSIVE; ignored when PARALLEL.
        """
        prefix, prefix_valid = self.embed_prefix(self.image_tokens(images), text_ids, text_valid, state)
        suffix = self.embed_suffix(prefix, action_bins)
        valid = torch.cat([prefix_valid, prefix_valid.new_ones(suffix.shape[:2])], dim=1)
        x = torch.cat([prefix, suffix], dim=1)
        hidden = self.decoder(x, may_attend=self.may_attend(valid, prefix.shape[1]), positions=positions_from_valid(valid))
        ...
