"""Everything that is chosen about how a backbone acts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vla.errors import ConfigError
from vla.tokenizers.action_bins import ActionLayout, ActionVocabulary


class ActionDecoding(Enum):
    """How actions come out."""

    AUTOREGRESSIVE = "autoregressive"  # one after another, each fed back: OpenVLA
    PARALLEL = "parallel"  # a whole chunk in one forward pass
    L1 = "l1"  # numbers, a whole chunk in one forward pass: OpenVLA-OFT
    FLOW = "flow"  # numbers, out of noise in ten steps that share their prefix: pi0
    FAST = "fast"  # as many tokens as a chunk has news, each fed back: pi0-FAST


@dataclass(kw_only=True)
class ActionConfig:
    """What a backbone is given to act with: proprioception, action tokens or slots, and auxiliary outputs."""

    text_vocab_size: int = 512  # tokens before any action token is added
    layout: ActionLayout = ActionLayout.PER_DIMENSION  # of bins
    num_fast_tokens: int = 0  # FAST: ids after the text that stand for pieces of a chunk
    decoding: ActionDecoding = ActionDecoding.PARALLEL
    # what is read in one forward pass sees all of itself; false: only what came before
    sees_later_slots: bool = True
    chunk_length: int = 8  # steps decoded at once
    action_width: int = 7  # numbers an action
    state_width: int = 7  # numbers of proprioception; 0: the model is not told
    grounding: bool = True  # auxiliary outputs that say where the named object is

    def __post_init__(self) -> None:
        for name in ("chunk_length", "action_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1")
        if (self.decoding is ActionDecoding.FAST) != (self.num_fast_tokens > 0):
            raise ConfigError(
                f"decoding={self.decoding.name} with num_fast_tokens = {self.num_fast_tokens}; FAST needs some, "
                "and nothing else has any"
            )
        if self.grounding and self.is_token_by_token:
            raise ConfigError(
                "grounding reads what stands where the first action is to come out, and token by token nothing "
                "does yet; set decoding=PARALLEL (or L1, FLOW) or grounding=false"
            )

    @property
    def is_token_by_token(self) -> bool:
        """Whether actions are tokens of the vocabulary, each fed back to read the next."""
        return self.decoding in (ActionDecoding.AUTOREGRESSIVE, ActionDecoding.FAST)

    @property
    def has_bins(self) -> bool:
        """Whether every number of an action is a bin, with a probability."""
        return self.decoding in (ActionDecoding.PARALLEL, ActionDecoding.AUTOREGRESSIVE)

    @property
    def num_token_rows(self) -> int:
        """Tokens the decoder must embed: slots are no tokens, so in one forward pass the text is all."""
        if not self.is_token_by_token:
            return self.text_vocab_size
        if self.decoding is ActionDecoding.FAST:
            return self.text_vocab_size + self.num_fast_tokens
        return self.text_vocab_size + self.action_vocabulary().num_new_ids

    def action_vocabulary(self) -> ActionVocabulary:
        """Returns where the ids of bins lie."""
        return ActionVocabulary(self.layout, self.text_vocab_size, self.action_width)
