"""A vision-language-action model: any backbone, told the robot's state, with actions as its answer.

    prefix  what the backbone makes of pictures and words | proprioception, if any
    suffix  AUTOREGRESSIVE: action tokens, steps x dims of them, each fed back to read the next, then the end token
            FAST: as many tokens as the chunk takes, each fed back, then the end token
            PARALLEL, L1: learned slots, all in one forward pass, each read where it stands
            FLOW: a noisy chunk, read again and again until it is actions

Masks, positions and per-layer embeddings of what is added follow the backbone's own (`vla.models.sequence.continued`):
proprioception belongs to a prefix that sees all of itself, or else follows the words. OpenVLA is this over a Prismatic.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from vla.errors import ConfigError
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_heads import (
    ActionHead,
    ActionOutput,
    FastActionHead,
    FlowActionHead,
    GroundingHead,
    L1ActionHead,
    ParallelActionHead,
    TokenActionHead,
)
from vla.models.backbones.families import AnyBackbone
from vla.models.connectors import ProprioProjector
from vla.models.decoder_config import Head
from vla.models.flow_sampling import Velocity, cached_velocity
from vla.models.initialisation import initialise
from vla.models.sequence import Prefix, continued, read
from vla.nn.masks import PrefixAttention
from vla.nn.positions import last_valid


class VisionLanguageAction(nn.Module):
    """A backbone, and what its action decoding asks for."""

    def __init__(self, backbone: AnyBackbone, config: ActionConfig) -> None:
        """Adds what acts, with fresh weights, to a backbone that stays as it is.

        Raises:
            ConfigError: the backbone's decoder has too few tokens, or no head for decoding token by token.
        """
        super().__init__()
        _check_fit(backbone, config)
        self.config = config
        self.backbone = backbone
        width, state_width = backbone.config.decoder.width, config.state_width
        self.proprio = ProprioProjector(state_width, width) if state_width else None
        self.action_head = _action_head(config, width)
        self.grounding_head = GroundingHead(width) if config.grounding else None
        for part in (self.proprio, self.action_head, self.grounding_head):
            if part is not None:
                initialise(part)

    def forward(
        self,
        images: UInt8[Tensor, "batch views 3 rows columns"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
        action_bins: Int[Tensor, "batch steps dims"] | None = None,
        noisy: Float[Tensor, "batch steps dims"] | None = None,
        time: Float[Tensor, " batch"] | None = None,
        fast_tokens: Int[Tensor, "batch tokens"] | None = None,
    ) -> ActionOutput:
        """Returns what the head says of a whole chunk: logits, numbers, or a velocity.

        Args:
            images: pictures of each view, 0..255.
            text_ids: prompt in the backbone's own form, right-padded.
            text_valid: True for tokens of the prompt, False for padding.
            state: normalised proprioception; needed when the config's `state_width` > 0.
            action_bins: the true bins, fed to an AUTOREGRESSIVE decoder; the others do not look at them.
            noisy: normalised actions on their way, for a FLOW.
            time: how far they are, 0 noise to 1 actions.
            fast_tokens: the true tokens of FAST, -1 after a row's last; for a model that decodes with FAST.
        """
        prefix = self.prefix(images, text_ids, text_valid, state)
        head = self.action_head
        if isinstance(head, TokenActionHead):
            if action_bins is None:
                raise ConfigError("an AUTOREGRESSIVE model is fed action_bins; or use ActionEngine")
            ids = head.token_ids(action_bins).flatten(1)
            tokens = self._read_tokens(prefix, ids)
            bins = head.action_logits(tokens[:, :-1])
            return ActionOutput(action_logits=bins, token_logits=tokens, token_ids=ids)
        if isinstance(head, FastActionHead):
            if fast_tokens is None:
                raise ConfigError("a FAST model is fed fast_tokens; or use ActionEngine")
            ids = head.token_ids(fast_tokens)
            return ActionOutput(token_logits=self._read_tokens(prefix, ids), token_ids=ids)
        num_prefix = prefix.valid.shape[1]
        sequence = continued(
            prefix,
            _suffix(head, len(images), noisy, time),
            is_parallel=self.config.sees_later_slots,
            filler_id=self.backbone.filler_id,
        )
        hidden = read(self.backbone.decoder, sequence)
        output = head.read(hidden[:, num_prefix:])
        if self.grounding_head is not None:
            num_views = images.shape[1]
            num_tokens = num_views * self.backbone.num_image_tokens(images.shape[2:])
            seen = _image_hidden(hidden, sequence.is_image, num_tokens)
            output.pointing_logits, output.target_from_tool_dm = self.grounding_head(
                hidden[:, num_prefix], seen.unflatten(1, (num_views, -1))
            )
        return output

    def prefix(
        self,
        images: UInt8[Tensor, "batch views 3 rows columns"],
        text_ids: Int[Tensor, "batch text"],
        text_valid: Bool[Tensor, "batch text"],
        state: Float[Tensor, "batch state"] | None = None,
    ) -> Prefix:
        """Returns what the decoder reads before the first action token or slot; arguments as in `forward`."""
        prefix = self.backbone.embed_pictures(text_ids, text_valid, images)
        if self.proprio is None:
            return prefix
        if state is None:
            raise ConfigError(f"the model reads {self.config.state_width} state values; pass state")
        return continued(
            prefix,
            self.proprio(state.to(self.proprio.fc1.weight.dtype)),
            is_parallel=False,
            joins=self.backbone.attention is PrefixAttention.PREFIX_LM,
            filler_id=self.backbone.filler_id,
        )

    def velocity(self, prefix: Prefix) -> Velocity:
        """Returns, of a FLOW, the velocity of noisy chunks after `prefix`, which is read here, once."""
        if not isinstance(self.action_head, FlowActionHead):
            raise ConfigError(
                f"decoding={self.config.decoding.name} has no velocity; only FLOW has"
            )
        return cached_velocity(
            self.action_head,
            self.backbone.decoder,
            prefix,
            is_parallel=self.config.sees_later_slots,
            filler_id=self.backbone.filler_id,
        )

    def _read_tokens(self, prefix: Prefix, ids: Tensor) -> Tensor:
        """Logits of each token from those before it, and of the end of the answer from all of them."""
        decoder, num_prefix = self.backbone.decoder, prefix.valid.shape[1]
        sequence = continued(prefix, decoder.embed(ids), is_parallel=False, suffix_ids=ids)
        hidden = read(decoder, sequence)
        before = last_valid(hidden[:, :num_prefix], prefix.valid)
        return decoder.logits(torch.cat([before, hidden[:, num_prefix:]], dim=1))


def _action_head(config: ActionConfig, width: int) -> ActionHead:
    steps, dims = config.chunk_length, config.action_width
    match config.decoding:
        case ActionDecoding.PARALLEL:
            return ParallelActionHead(width, config.layout, steps, dims)
        case ActionDecoding.AUTOREGRESSIVE:
            return TokenActionHead(config.action_vocabulary())
        case ActionDecoding.FAST:
            return FastActionHead(config.text_vocab_size, config.num_fast_tokens)
        case ActionDecoding.L1:
            return L1ActionHead(width, steps, dims)
        case ActionDecoding.FLOW:
            return FlowActionHead(width, steps, dims)


def _suffix(
    head: ParallelActionHead | L1ActionHead | FlowActionHead,
    batch_size: int,
    noisy: Tensor | None,
    time: Tensor | None,
) -> Tensor:
    if not isinstance(head, FlowActionHead):
        return head.suffix(batch_size)
    if noisy is None or time is None:
        raise ConfigError("a FLOW model is fed noisy actions and their time; or use ActionEngine")
    return head.suffix(noisy, time)


def _check_fit(backbone: AnyBackbone, config: ActionConfig) -> None:
    decoder = backbone.config.decoder
    if decoder.vocab_size < config.num_token_rows:
        raise ConfigError(
            f"the decoder embeds {decoder.vocab_size} tokens; text_vocab_size {config.text_vocab_size} with "
            f"{_kind_of_tokens(config)} action tokens needs {config.num_token_rows}; raise decoder.vocab_size"
        )
    if config.is_token_by_token and decoder.head is Head.NONE:
        raise ConfigError(
            "decoding token by token needs a head over the vocabulary; build the decoder with head=TIED or head=OWN"
        )


def _kind_of_tokens(config: ActionConfig) -> str:
    return "FAST" if config.decoding is ActionDecoding.FAST else config.layout.name


def _image_hidden(
    hidden: Float[Tensor, "batch tokens width"],
    is_image: Bool[Tensor, "batch tokens"],
    num_image_tokens: int,
) -> Float[Tensor, "batch image_tokens width"]:
    """The hidden states of the image tokens, in order; every row has `num_image_tokens` of them."""
    places = is_image.long().argsort(dim=1, descending=True, stable=True)[:, :num_image_tokens]
    first = torch.arange(len(hidden), device=hidden.device)[:, None] * hidden.shape[1]
    chosen = hidden.flatten(0, 1).index_select(0, (places + first).flatten())
    return chosen.unflatten(0, (len(hidden), -1))
