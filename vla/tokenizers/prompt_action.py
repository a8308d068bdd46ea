"""An instruction to a robot, beside what its cameras see, as tokens in each family's own form.

    PRISMATIC   <bos> | instruction                                             the model puts the views after <bos>
    PALIGEMMA   <image> * n | <image> * n | <bos> instruction \\n
    QWEN2_VL    <|im_start|>user \\n view | view | instruction <|im_end|> \\n <|im_start|>assistant \\n
    GEMMA4      <bos> <|turn>user \\n view | view | instruction <turn|> \\n <|turn>model \\n

Actions follow as the model's answer, and after the last one its end token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vla.errors import ConfigError
from vla.tokenizers.prompt import PromptEncoder, PromptTemplate
from vla.tokenizers.prompt_answer import PromptFamily
from vla.tokenizers.prompt_batch import PromptRow, first_id
from vla.tokenizers.prompt_chat import GEMMA4, QWEN2_VL, ChatPrompts, Picture, user
from vla.tokenizers.prompt_paligemma import PaliGemmaPrompts
from vla.tokenizers.text import EOS

_CHATS = {
    PromptFamily.QWEN2_VL: replace(QWEN2_VL, default_system=None),
    PromptFamily.GEMMA4: GEMMA4,
}


class InstructionPrompts:
    """Turns instructions into rows of token ids of one fixed length.

    Attributes:
        end_id: what the model writes after its last action token.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        family: PromptFamily,
        template: PromptTemplate,
        *,
        max_text_tokens: int,
        image_tokens: Sequence[int],
    ) -> None:
        """Prepares encoding.

        Args:
            tokenizer: with the family's special tokens.
            family: whose form.
            template: what surrounds the instruction.
            max_text_tokens: that an instruction with its BOS may take; image tokens and turns come on top.
            image_tokens: of each view.

        Raises:
            CheckpointError: the tokenizer lacks a token; it is of another family.
        """
        self.template, self._image_tokens = template, list(image_tokens)
        self._chat = self._paligemma = self._prismatic = None
        match family:
            case PromptFamily.PRISMATIC:
                self._prismatic = PromptEncoder(tokenizer, template, max_text_tokens)
                self.pad_id = self._prismatic.pad_id
                self.end_id = first_id(tokenizer, (EOS, "</s>"))
                self.max_tokens = max_text_tokens
                return
            case PromptFamily.PALIGEMMA:
                self._paligemma = PaliGemmaPrompts(tokenizer, num_image_tokens=1)
                self.pad_id, self.end_id = self._paligemma.pad_id, self._paligemma.eos_id
            case PromptFamily.QWEN2_VL | PromptFamily.GEMMA4:
                self._chat = ChatPrompts(tokenizer, _CHATS[family])
                self.pad_id, self.end_id = self._chat.pad_id, self._chat.end_id
        num_around = len(self._row("").ids) - 1  # one of them counts as BOS
        self.max_tokens = max_text_tokens + num_around

    def ids(self, instruction: str) -> list[int]:
        """Returns the tokens of one prompt, without padding; raises ConfigError when they do not fit."""
        if self._prismatic is not None:
            return self._prismatic.ids(instruction)
        ids = self._row(self.template.text(instruction)).ids
        if len(ids) > self.max_tokens:
            raise ConfigError(
                f"the instruction {instruction!r} takes {len(ids)} tokens with pictures and turns; the model reads "
                f"{self.max_tokens}; shorten it"
            )
        return ids

    def __call__(self, instructions: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Returns ids (batch, max_tokens), right-padded, and which of them are not padding."""
        rows = [self.ids(instruction) for instruction in instructions]
        ids = np.full((len(rows), self.max_tokens), self.pad_id, dtype=np.int64)
        valid = np.zeros(ids.shape, dtype=np.bool_)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            valid[index, : len(row)] = True
        return ids, valid

    def _row(self, text: str) -> PromptRow:
        if self._paligemma is not None:
            return self._paligemma.row(text, num_images=sum(self._image_tokens))
        assert self._chat is not None
        views = [Picture(count) for count in self._image_tokens]
        return self._chat.row([user(*views, text)])
