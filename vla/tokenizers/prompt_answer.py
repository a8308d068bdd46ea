"""Questions about one picture, and their answers, as tokens, alike for every family.

    PRISMATIC   <bos> | instruction \\n | ANSWER <eos>                            the model puts the picture after <bos>
    PALIGEMMA   <image> * n | <bos> instruction \\n | ANSWER <eos>
    QWEN2_VL    <|im_start|>user \\n picture | instruction <|im_end|> ... | ANSWER <|im_end|>
    GEMMA4      <bos> <|turn>user \\n picture | instruction <turn|> ... | ANSWER <turn|>
                head                      | document

What comes before the instruction is the head, the same for every question about the picture. Answers may name places
and masks ("<loc0001>", "<seg001>"), one token each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from tokenizers import Tokenizer

from vla.tokenizers.loc_seg import PlaceVocabulary
from vla.tokenizers.prompt_batch import PromptRow
from vla.tokenizers.prompt_chat import (
    GEMMA4,
    QWEN2_VL,
    ChatPrompts,
    Clip,
    Picture,
    Turn,
    model,
    system,
    user,
)
from vla.tokenizers.prompt_paligemma import PaliGemmaPrompts


class PromptFamily(Enum):
    """Whose layout a prompt has."""

    PRISMATIC = "prismatic"
    PALIGEMMA = "paligemma"
    QWEN2_VL = "qwen2_vl"
    GEMMA4 = "gemma4"


_CHATS = {
    # The released default ("You are a helpful assistant.") is said where `system_text` asks for it.
    PromptFamily.QWEN2_VL: replace(QWEN2_VL, default_system=None),
    PromptFamily.GEMMA4: GEMMA4,
}


class AnswerPrompts:
    """Turns an instruction about one picture, and in training its answer, into tokens; and tokens into words."""

    def __init__(self, tokenizer: Tokenizer, family: PromptFamily, system_text: str = "") -> None:
        """Looks up the special tokens.

        Args:
            tokenizer: with places, and the family's turns and placeholders: `train_scene_tokenizer`'s has all.
            family: whose layout.
            system_text: opening instruction of the families that converse; "" leaves that turn out.

        Raises:
            CheckpointError: the tokenizer lacks a token; it is of another family.
        """
        self.family, self.system_text = family, system_text
        self._chat = self._paligemma = None
        if family in _CHATS:
            self._chat = ChatPrompts(tokenizer, _CHATS[family])
            self.places = PlaceVocabulary(tokenizer)
            self.end_id, self.pad_id = self._chat.end_id, self._chat.pad_id
        else:
            self._paligemma = PaliGemmaPrompts(tokenizer, num_image_tokens=1)
            self.places = self._paligemma.places
            self.end_id, self.pad_id = self._paligemma.eos_id, self._paligemma.pad_id

    def row(
        self,
        instruction: str,
        answer: str | Sequence[int] | None = None,
        *,
        num_image_tokens: int,
        is_clip: bool = False,
    ) -> PromptRow:
        """Returns the tokens of one question about one picture or clip.

        Args:
            instruction: what is asked, such as "detect red cube".
            answer: words, or ids such as action tokens; None leaves it to be generated.
            num_image_tokens: of the picture, `Backbone.num_image_tokens`.
            is_clip: the families that tell clips from pictures mark them differently.

        Raises:
            ConfigError: a clip for a family that reads none.
        """
        if self._paligemma is not None:
            num_places = num_image_tokens if self.family is PromptFamily.PALIGEMMA else 0
            return self._paligemma.row(instruction, answer, num_images=num_places)
        assert self._chat is not None
        shown = Clip(num_image_tokens) if is_clip else Picture(num_image_tokens)
        turns: list[Turn] = [system(self.system_text)] if self.system_text else []
        turns.append(user(shown, instruction))
        if answer is not None:
            turns.append(model(self.places.ids(answer) if isinstance(answer, str) else answer))
        return self._chat.row(turns)

    def head_length(self, num_image_tokens: int, *, is_clip: bool = False) -> int:
        """Returns how many tokens, of those that `row` gives, come before the instruction."""
        match self.family:
            case PromptFamily.PRISMATIC:
                return 1
            case PromptFamily.PALIGEMMA:
                return num_image_tokens
        assert self._chat is not None
        row = self.row("", num_image_tokens=num_image_tokens, is_clip=is_clip)
        shown_id = self._chat.video_id if is_clip else self._chat.image_id
        assert shown_id is not None
        return len(row.ids) - row.ids[::-1].index(shown_id) + 1  # one more: the end of the picture

    def text(self, ids: Sequence[int]) -> str:
        """Returns the words of an answer, places and masks spelled out, up to its end token."""
        ids = list(ids)
        if self.end_id in ids:
            ids = ids[: ids.index(self.end_id)]
        return " ".join(self.places.text(ids).split())
