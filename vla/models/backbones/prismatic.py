"""Prismatic, OpenVLA's kind of vision-language-action model (Karamcheti et al. 2024; Kim et al. 2024).

Sequence, left to right, with V views of N image tokens and T text tokens (BOS and padding included):

    prefix  BOS | view 1: N image tokens | view 2 ... | text 1..T-1, right-padded | proprioception, if any
    suffix  AUTOREGRESSIVE: action tokens, steps x dims of them, each fed back to read the next
            PARALLEL: learned slots, all in one forward pass, each read where it stands

Padding takes no position and nobody attends to it: a padded row equals the same row without padding.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.action_heads import (
    ActionOutput,
    GroundingHead,
    ParallelActionHead,
    TokenActionHead,
)
from vla.models.backbones.prismatic_config import ActionDecoding, PrismaticConfig
from vla.models.connectors import FusedMLPProjector, ProprioProjector
from vla.models.decoder import Decoder
from vla.models.initialisation import initialise
from vla.models.sequence import insert_after_bos
from vla.models.vision.fused import FusedTowers
from vla.nn.masks import attention_mask, sequence_blocks
from vla.nn.positions import last_valid, positions_from_valid


class Prismatic(nn.Module):
    """Vision towers, a projector, a decoder, and the head that its action decoding asks for."""

    def __init__(self, config: PrismaticConfig) -> None:
        super().__init__()
        self.config = config
        width, state_width = config.decoder.width, config.state_width
        self.vision = FusedTowers(config.towers, config.image_size)
        self.projector = FusedMLPProjector(self.vision.width, config.projector_width, width)
        self.view_embedding = (
            nn.Parameter(torch.zeros(config.num_views, 1, width)) if config.num_views > 1 else None
        )
        self.proprio = ProprioProjector(state_width, width) if state_width else None
        self.decoder = Decoder(config.decoder)
        if config.action_decoding is ActionDecoding.PARALLEL:
            steps, dims = config.chunk_length, config.action_width
            self.action_head = ParallelActionHead(width, config.action_layout, steps, dims)
        else:
            vocabulary = config.action_vocabulary()
            self.action_head = TokenActionHead(width, config.decoder.vocab_size, vocabulary)
        self.grounding_head = GroundingHead(width) if config.grounding else None
        initialise(self)

    def forward(
        self,
        images: UInt8[Tensor, "batch views 3 rows columns"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
        action_bins: Int[Tensor, "batch steps dims"] | None = None,
    ) -> ActionOutput:
        """Returns the logits of a whole chunk.

        Args:
            images: pictures of each view, 0..255.
            text_ids: prompt, BOS first, right-padded.
            text_valid: True for tokens of the prompt, False for padding.
            state: normalised proprioception; needed when the config's `state_width` > 0.
            action_bins: the true bins, fed to an AUTOREGRESSIVE decoder; PARALLEL does not look at them.
        """
        prefix, prefix_valid = self.embed_prefix(images, text_ids, text_valid, state)
        num_prefix = prefix.shape[1]
        suffix = self._embed_suffix(prefix, action_bins)
        valid = torch.cat([prefix_valid, prefix_valid.new_ones(suffix.shape[:2])], dim=1)
        hidden = self.decoder(
            torch.cat([prefix, suffix], dim=1),
            may_attend=self.may_attend(valid, num_prefix),
            positions=positions_from_valid(valid),
        )
        read = hidden[:, num_prefix:]
        if isinstance(self.action_head, TokenActionHead):
            read = torch.cat([last_valid(hidden[:, :num_prefix], prefix_valid), read], dim=1)
            tokens = self.action_head(read)
            bins = self.action_head.action_logits(tokens)
            return ActionOutput(action_logits=bins, token_logits=tokens)
        output = ActionOutput(action_logits=self.action_head(read))
        if self.grounding_head is not None:
            views = hidden[:, 1 : 1 + images.shape[1] * self.vision.num_patches]
            output.pointing_logits, output.target_from_tool_dm = self.grounding_head(
                read[:, 0], views.unflatten(1, (images.shape[1], -1))
            )
        return output

    def image_tokens(
        self, images: UInt8[Tensor, "batch views 3 rows columns"]
    ) -> Float[Tensor, "batch image_tokens width"]:
        """Returns image tokens, view after view, each marked: the towers cannot tell views apart."""
        tokens = self.projector(self.vision(images.flatten(0, 1))).unflatten(0, images.shape[:2])
        if self.view_embedding is not None:
            tokens = tokens + self.view_embedding.to(tokens.dtype)
        return tokens.flatten(1, 2)

    def embed_prefix(
        self, images: Tensor, text_ids: Tensor, text_valid: Tensor, state: Tensor | None
    ) -> tuple[Float[Tensor, "batch prefix width"], Bool[Tensor, "batch prefix"]]:
        """Returns the prefix, and which of its tokens are not padding; arguments as in `forward`."""
        image_tokens = self.image_tokens(images)
        text = self.decoder.token_embedding(text_ids).to(image_tokens.dtype)
        if self.proprio is None:
            return insert_after_bos(text, text_valid, image_tokens)
        if state is None:
            raise ConfigError(f"the model reads {self.config.state_width} state values; pass state")
        proprio = self.proprio(state.to(self.proprio.fc1.weight.dtype)).to(image_tokens.dtype)
        return insert_after_bos(text, text_valid, image_tokens, proprio)

    def may_attend(
        self, valid: Bool[Tensor, "batch tokens"], num_prefix: int
    ) -> Bool[Tensor, "batch 1 tokens tokens"]:
        """Returns the attention mask of [prefix | suffix]."""
        blocks = sequence_blocks(
            valid,
            num_prefix,
            attention=self.config.attention,
            is_suffix_parallel=self.config.is_suffix_parallel,
        )
        return attention_mask(valid, blocks)

    def _embed_suffix(self, prefix: Tensor, action_bins: Tensor | None) -> Tensor:
        """The slots, or the embedded action tokens but the last, after which nothing is read."""
        if isinstance(self.action_head, ParallelActionHead):
            return self.action_head.slots.to(prefix.dtype).expand(prefix.shape[0], -1, -1)
        if action_bins is None:
            raise ConfigError("an AUTOREGRESSIVE model is fed action_bins; or use ActionEngine")
        ids = self.action_head.token_ids(action_bins).flatten(1)[:, :-1]
        return self.decoder.token_embedding(ids).to(prefix.dtype)
