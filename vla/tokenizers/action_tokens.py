"""Where the action ids of a real tokenizer lie, and new ones for it.

    layout          Llama 2 (OpenVLA)   PaliGemma          Qwen2-VL           Gemma 4
    LAST_256        31744..31999        255744..255999     151387..151642     261888..262143
    NEW_256         <act000>..<act255> after every token the tokenizer has
    PER_DIMENSION   <act0_000>..<act6_255> after every token the tokenizer has, for 7 dimensions

LAST_256 gives up the last 256 tokens of the text vocabulary. It ends before the first <loc> token (PaliGemma:
256000), else where the model's own pieces end and added tokens begin (Llama 2: 32000, Qwen2: 151643, Gemma 4:
262144). Sources: openvla/openvla c8f03f4, prismatic/vla/action_tokenizer.py; the families' released tokenizers.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer

from vla.errors import CheckpointError, ConfigError
from vla.tokenizers.action_bins import NUM_BINS, ActionLayout, ActionVocabulary
from vla.tokenizers.loc_seg import LOCATION_TOKENS


def text_vocab_size(tokenizer: Tokenizer) -> int:
    """Returns the id after the last token of text: of the first location token, or of the first added token."""
    first_location = tokenizer.token_to_id(LOCATION_TOKENS[0])
    if first_location is not None:
        return first_location
    return tokenizer.get_vocab_size(with_added_tokens=False)


def action_token_names(layout: ActionLayout, action_width: int) -> list[str]:
    """Returns the names of the tokens a layout adds, in the order of their ids; none for LAST_256."""
    match layout:
        case ActionLayout.LAST_256:
            return []
        case ActionLayout.NEW_256:
            return [f"<act{index:03d}>" for index in range(NUM_BINS)]
        case ActionLayout.PER_DIMENSION:
            return [
                f"<act{d}_{index:03d}>" for d in range(action_width) for index in range(NUM_BINS)
            ]


def extend_with_actions(tokenizer: Tokenizer, layout: ActionLayout, action_width: int) -> Tokenizer:
    """Returns a copy of `tokenizer` with the tokens its layout adds, as special tokens: no text becomes an action.

    Raises:
        ConfigError: it has some of them already.
    """
    extended = Tokenizer.from_str(tokenizer.to_str())
    extended.encode_special_tokens = tokenizer.encode_special_tokens  # the JSON does not keep this
    names = action_token_names(layout, action_width)
    present = [name for name in names if tokenizer.token_to_id(name) is not None]
    if present:
        raise ConfigError(
            f"the tokenizer already has {len(present)} of the {len(names)} action tokens, {present[0]} first; "
            "extend the tokenizer of the checkpoint that has none"
        )
    extended.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return extended


def action_vocabulary(
    tokenizer: Tokenizer, layout: ActionLayout, action_width: int
) -> ActionVocabulary:
    """Returns which ids of `tokenizer` stand for actions.

    Raises:
        CheckpointError: the tokenizer lacks them, or they would take special tokens.
    """
    names = action_token_names(layout, action_width)
    if not names:
        return _last_256(tokenizer, action_width)
    ids = [tokenizer.token_to_id(name) for name in names]
    missing = [name for name, token_id in zip(names, ids, strict=True) if token_id is None]
    if missing:
        raise CheckpointError(
            f"the tokenizer lacks {len(missing)} of the {len(names)} action tokens of layout {layout.value!r}, "
            f"{missing[0]} first; it belongs to a checkpoint without actions: see extend_with_actions"
        )
    vocabulary = ActionVocabulary(layout, ids[0], action_width)
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise CheckpointError(
            f"the action tokens {names[0]}..{names[-1]} do not have consecutive ids; expected {ids[0]} and "
            "those after it: the tokenizer was not made by extend_with_actions"
        )
    return vocabulary


def _last_256(tokenizer: Tokenizer, action_width: int) -> ActionVocabulary:
    end = text_vocab_size(tokenizer)
    if end <= NUM_BINS:
        raise CheckpointError(
            f"the tokenizer has {end} text tokens, too few to give up its last {NUM_BINS}; "
            f"use layout {ActionLayout.NEW_256.value!r}"
        )
    special = [
        token.content
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
        if token.special and end - NUM_BINS <= token_id < end
    ]
    if special:
        raise CheckpointError(
            f"the last {NUM_BINS} text tokens hold the special tokens {', '.join(special[:3])}, which cannot "
            f"stand for actions; use layout {ActionLayout.NEW_256.value!r}"
        )
    return ActionVocabulary(ActionLayout.LAST_256, end, action_width)
