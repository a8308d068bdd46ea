"""Chunks as FAST's tokens, of which only those can come out that make a whole chunk.

A token spells one or more of the chunk's coefficients (`FastTokenizer.num_coefficients`). It may follow while its own
fit in what is left, and the end token when nothing is left: no answer is ill-formed, whatever the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla.errors import ConfigError
from vla.inference.generate import Generated, generate
from vla.inference.sampling import GREEDY, Sampling
from vla.models.action_heads import FastActionHead
from vla.models.action_model import VisionLanguageAction
from vla.models.sequence import Prefix
from vla.tokenizers.fast import FastTokenizer


@dataclass(kw_only=True)
class WholeChunks:
    """What may come out next, so that a chunk comes out.

    Attributes:
        spelled: (vocabulary,) how many coefficients each id spells; 0 for ids that are not FAST's.
        total: coefficients in a chunk.
        end_id: what follows the last of them.
    """

    spelled: Int[Tensor, " vocabulary"]
    total: int
    end_id: int

    def __call__(self, tokens: Int[Tensor, "batch steps"]) -> Bool[Tensor, "batch vocabulary"]:
        """Returns True for the ids that may follow `tokens`, which came out so far."""
        left = self.total - self.spelled[tokens].sum(dim=1, keepdim=True)
        allowed = (self.spelled > 0) & (self.spelled <= left)
        allowed[:, self.end_id] = left[:, 0] == 0
        return allowed


def whole_chunks(
    head: FastActionHead, fast: FastTokenizer, vocab_size: int, end_id: int
) -> WholeChunks:
    """Returns the constraint of one model and tokenizer, on the CPU.

    Raises:
        ConfigError: the tokenizer has more tokens than the model has rows for.
    """
    if fast.num_tokens > head.num_tokens:
        raise ConfigError(
            f"the FAST tokenizer has {fast.num_tokens} tokens, the model rows for {head.num_tokens}; "
            "load both from one checkpoint"
        )
    spelled = torch.zeros(vocab_size, dtype=torch.int64)
    spelled[head.first_id : head.first_id + fast.num_tokens] = torch.from_numpy(
        fast.num_coefficients
    )
    return WholeChunks(spelled=spelled, total=fast.max_tokens, end_id=end_id)


def generate_chunks(
    model: VisionLanguageAction,
    prefix: Prefix,
    fast: FastTokenizer,
    end_id: int,
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "batch steps dims"], Generated]:
    """Returns chunks normalised to [-1, 1], on the CPU, and the tokens that they were read from.

    Args:
        model: that decodes with FAST, in eval mode.
        prefix: what it has seen and been told.
        fast: the tokenizer that it was trained with.
        end_id: what it writes after a chunk (`InstructionPrompts.end_id`).
        sampling: how tokens are drawn.
        generator: source of randomness when `sampling` draws.
    """
    head, decoder = model.action_head, model.backbone.decoder
    if not isinstance(head, FastActionHead):
        raise ConfigError(f"decoding={model.config.decoding.name} writes no FAST tokens")
    rule = whole_chunks(head, fast, decoder.config.vocab_size, end_id)
    rule.spelled = rule.spelled.to(prefix.embeddings.device)
    generated = generate(
        decoder,
        prefix,
        max_tokens=fast.max_tokens + 1,
        stop_ids=[end_id],
        allowed_next=rule,
        sampling=sampling,
        generator=generator,
    )
    tokens = head.fast_tokens(generated.tokens).cpu()
    rows = [row[row >= 0].tolist() for row in tokens]
    return torch.from_numpy(fast.decode(rows)), generated
