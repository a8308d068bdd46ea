"""Words, or action tokens, one after another: the prefix is read once, then each new token alone, with a cache.

    prefill    the prompts, padded left or right to one length  ->  hidden state after the last token of each row
    decode     one more token of each row                       ->  its hidden state

Every backbone puts what it is shown and told into a `Prefix`; from there on all families are read alike. A row's result
does not depend on the other rows of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla.errors import ConfigError
from vla.inference.sampling import GREEDY, Sampling, choose
from vla.models.decoder import Decoder
from vla.models.sequence import Prefix, next_positions, read
from vla.nn.kv_cache import KVCache
from vla.nn.masks import attention_mask, causal_blocks
from vla.nn.positions import last_valid

# Given the number of a step, from 0 on, returns the ids that may come out in it; None where any may.
AllowedIds = Callable[[int], Int[Tensor, " ids"] | None]
# Given what came out so far (batch, steps), returns True for what may come next in each row (batch, vocabulary).
AllowedNext = Callable[[Tensor], Tensor]
# Given hidden states (batch, 1, width), returns logits over the vocabulary (batch, 1, vocabulary).
ReadLogits = Callable[[Tensor], Tensor]


@dataclass(kw_only=True)
class Generated:
    """What came out.

    Attributes:
        tokens: (batch, steps) ids; after its stop token a row repeats it.
        probabilities: (batch, steps) of each token under the distribution it was drawn from; 1 after the stop token.
        valid: (batch, steps) True up to the stop token, which counts as generated.
    """

    tokens: Int[Tensor, "batch steps"]
    probabilities: Float[Tensor, "batch steps"]
    valid: Bool[Tensor, "batch steps"]


@dataclass(kw_only=True)
class Context:
    """What has been read.

    Attributes:
        cache: its keys and values.
        valid: (batch, tokens) which of the cached tokens are not padding.
        next_positions: (batch,) position of the next token; words count alike on every axis.
    """

    cache: KVCache
    valid: Bool[Tensor, "batch tokens"]
    next_positions: Int[Tensor, " batch"]


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prefix: Prefix,
    *,
    max_tokens: int,
    stop_ids: Sequence[int] = (),
    allowed_ids: AllowedIds | None = None,
    allowed_next: AllowedNext | None = None,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    read_logits: ReadLogits | None = None,
    forced_ids: Int[Tensor, "batch forced"] | None = None,
) -> Generated:
    """Returns what follows each row of the prefix.

    Args:
        decoder: of the backbone that made the prefix; in eval mode.
        prefix: prompts, padded on either side.
        max_tokens: of each row, the stop token included.
        stop_ids: a row ends after any of these.
        allowed_ids: the ids that may come out in each step; None allows all in all steps.
        allowed_next: likewise, where rows differ in what they may say, depending on what they have said.
        sampling: how a token is drawn.
        generator: source of randomness when `sampling` draws.
        read_logits: what reads the logits; None takes the decoder's own head.
        forced_ids: the first tokens of each row, settled beforehand; the rest follows given these.

    Raises:
        ConfigError: a prompt is empty, or with `max_tokens` longer than the context.
    """
    check_length(decoder, prefix, max_tokens)
    stop = torch.tensor(list(stop_ids), dtype=torch.int64, device=prefix.embeddings.device)
    hidden, context = prefill(decoder, prefix, num_further_tokens=max_tokens - 1)
    is_running = prefix.valid.any(dim=1)
    nothing = stop.new_empty(len(is_running), 0)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(max_tokens):
        logits = (read_logits or decoder.logits)(hidden)[:, 0]
        if allowed_next is not None:
            said = torch.stack([tokens for tokens, *_ in steps], dim=1) if steps else nothing
            logits = logits.masked_fill(~allowed_next(said), -math.inf)
        tokens, probability = _choose_token(
            logits, allowed_ids and allowed_ids(step), sampling, generator
        )
        if forced_ids is not None and step < forced_ids.shape[1]:
            tokens, probability = forced_ids[:, step], torch.ones_like(probability)
        if steps:
            tokens = torch.where(is_running, tokens, steps[-1][0])
        steps.append((tokens, torch.where(is_running, probability, 1.0), is_running))
        if stop_ids:
            is_running = is_running & ~torch.isin(tokens, stop)
            if not is_running.any():
                break
        if step + 1 < max_tokens:
            hidden = decode(decoder, tokens, context)
    chosen, probabilities, valid = (
        torch.stack(column, dim=1) for column in zip(*steps, strict=True)
    )
    return Generated(tokens=chosen, probabilities=probabilities, valid=valid)


def prefill(
    decoder: Decoder, prefix: Prefix, *, num_further_tokens: int
) -> tuple[Float[Tensor, "batch 1 width"], Context]:
    """Reads the prefix once.

    Returns the hidden state after the last valid token of each row, and the context, with room for
    `num_further_tokens` more.
    """
    embeddings = prefix.embeddings
    cache = decoder.make_cache(
        embeddings.shape[0],
        embeddings.shape[1] + num_further_tokens,
        embeddings.dtype,
        embeddings.device,
    )
    hidden = read(decoder, prefix, cache)
    context = Context(cache=cache, valid=prefix.valid, next_positions=next_positions(prefix))
    return last_valid(hidden, prefix.valid), context


def decode(
    decoder: Decoder, token_ids: Int[Tensor, " batch"], context: Context
) -> Float[Tensor, "batch 1 width"]:
    """Reads one more token of each row; returns its hidden state and leaves the token in the context."""
    valid = torch.cat([context.valid, context.valid.new_ones(len(token_ids), 1)], dim=1)
    window = decoder.config.window
    near = None
    if window is not None:
        near = attention_mask(valid, causal_blocks(valid), window=window, num_queries=1)
    hidden = decoder(
        decoder.embed(token_ids[:, None]),
        may_attend=valid[:, None, None],
        may_attend_near=near,
        positions=context.next_positions[:, None],
        cache=context.cache,
        token_ids=token_ids[:, None],
    )
    context.valid, context.next_positions = valid, context.next_positions + 1
    return hidden


def check_length(decoder: Decoder, prefix: Prefix, max_tokens: int) -> None:
    """Raises ConfigError when a prompt is empty, or with `max_tokens` longer than the decoder's context."""
    lengths = prefix.valid.sum(dim=1).tolist()
    limit = decoder.config.max_tokens
    if max_tokens < 1:
        raise ConfigError(f"max_tokens = {max_tokens}; ask for at least 1")
    if 0 in lengths:
        raise ConfigError(
            f"prompt {lengths.index(0)} is empty; give at least one token, such as BOS"
        )
    if max(lengths) + max_tokens > limit:
        raise ConfigError(
            f"prompt {lengths.index(max(lengths))} has {max(lengths)} tokens, pictures included; with max_tokens = "
            f"{max_tokens} that is {max(lengths) + max_tokens}, and the context holds {limit}; shorten either"
        )


def _choose_token(
    logits: Tensor,
    allowed: Tensor | None,
    sampling: Sampling,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    if allowed is None:
        return choose(logits, sampling, generator)
    allowed = allowed.to(logits.device)
    chosen, probability = choose(logits[:, allowed], sampling, generator)
    return allowed[chosen], probability
