"""One vocabulary for everything that is trained here from nothing: words, places, masks, pictures and turns.

    0 ...                  the recipe of `vla.tokenizers.text`: specials, bytes, merges learnt from the corpus
    ...                    <unused> tokens, where the corpus gives fewer merges than there is room for
    the last 1165          <loc0000> .. <loc1023>  <seg000> .. <seg127>  <image>, Qwen2-VL's and Gemma 4's turn tokens

Its size is exactly what is asked for, so that parts trained apart fit together; action tokens come after it. Text that
spells one of the last 1165 gets the tokens of its characters: only the prompt builders put them, by id.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer

from vla.errors import ConfigError
from vla.tokenizers.loc_seg import CODEWORD_TOKENS, LOCATION_TOKENS
from vla.tokenizers.prompt_chat import GEMMA4, QWEN2_VL, ChatFormat
from vla.tokenizers.text import train_text_tokenizer

WHOLE_VOCABULARY = 2048
PALIGEMMA_IMAGE = "<image>"
_UNUSED = "<unused{:03d}>"
_NUM_BYTES_AND_SPECIALS = 260
_FRAME = [  # words of every prompt, so that turns and commands take few tokens whatever the corpus is
    "system\n", "user\n", "assistant\n", "model\n", "caption en\n", "answer en", "detect", "segment", "none",
]  # fmt: skip


def _format_tokens(chat_format: ChatFormat) -> list[str]:
    spec = chat_format
    names = [
        spec.turn_start, spec.turn_end, spec.image_start, spec.image, spec.image_end, spec.video, spec.pad,
    ]  # fmt: skip
    return [name for name in names if name is not None]


def _scene_tokens() -> tuple[str, ...]:
    names = [
        *LOCATION_TOKENS,
        *CODEWORD_TOKENS,
        PALIGEMMA_IMAGE,
        *_format_tokens(QWEN2_VL),
        *(name for name in _format_tokens(GEMMA4) if name != GEMMA4.pad),
    ]
    return tuple(dict.fromkeys(names))


SCENE_TOKENS = _scene_tokens()
DEFAULT_TEXT_VOCABULARY = WHOLE_VOCABULARY - len(SCENE_TOKENS)


def train_scene_tokenizer(
    corpus: Iterable[str], text_vocab_size: int = DEFAULT_TEXT_VOCABULARY
) -> Tokenizer:
    """Returns a tokenizer of exactly `text_vocab_size` + 1165 tokens, 2048 by default.

    Args:
        corpus: the texts whose words are to be one or two tokens; the words of
            prompts (roles of turns, "detect", "answer en", ...) are added.
        text_vocab_size: specials, bytes and merges.

    Raises:
        ConfigError: there is no room for the specials and the bytes.
    """
    if text_vocab_size < _NUM_BYTES_AND_SPECIALS:
        raise ConfigError(
            f"text_vocab_size = {text_vocab_size}; specials and bytes alone are {_NUM_BYTES_AND_SPECIALS}"
        )
    tokenizer = train_text_tokenizer([*corpus, *_FRAME, *_FRAME], text_vocab_size)
    num_unused = text_vocab_size - tokenizer.get_vocab_size()
    names = [*(_UNUSED.format(index) for index in range(num_unused)), *SCENE_TOKENS]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    tokenizer.encode_special_tokens = True
    return tokenizer
