"""From an instruction to prompt tokens: this and the other prompt_ files alone know their order.

    OPENVLA  BOS, "In: What action should the robot take to {instruction}?\\nOut:", and, where the tokenizer has
             it, the lone space token that follows "Out:" in training text (Llama 2: 29871)
    PLAIN    BOS, the instruction

In training the action tokens and the end token follow; these are what the loss is taken on (OpenVLA: 7 and </s>).
The families that converse are in prompt_paligemma and prompt_chat.

Instructions are lower-cased. Source of OPENVLA: openvla/openvla c8f03f4, prismatic/models/vlas/openvla.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vla.errors import ConfigError
from vla.tokenizers.prompt_batch import PromptRow, first_id
from vla.tokenizers.text import BOS, EOS, PAD

_LLAMA_SPACE = "\u2581"


class PromptTemplate(Enum):
    """What surrounds the instruction."""

    OPENVLA = "In: What action should the robot take to {instruction}?\nOut:"
    PLAIN = "{instruction}"

    def text(self, instruction: str) -> str:
        """Returns the prompt in words."""
        return self.value.format(instruction=instruction.strip().lower())


class PromptEncoder:
    """Turns instructions into rows of token ids of one fixed length."""

    def __init__(self, tokenizer: Tokenizer, template: PromptTemplate, max_tokens: int) -> None:
        """Prepares encoding.

        Args:
            tokenizer: ours, or Llama's (specials <s>, <unk>; padded with <unk> if it has no padding token).
            template: what surrounds the instruction.
            max_tokens: length of every row, BOS included.
        """
        self.tokenizer, self.template, self.max_tokens = tokenizer, template, max_tokens
        self.bos_id = first_id(tokenizer, (BOS, "<s>"))
        self.pad_id = first_id(tokenizer, (PAD, "<PAD>", "<unk>"))
        space_id = tokenizer.token_to_id(_LLAMA_SPACE)
        is_openvla = template is PromptTemplate.OPENVLA
        self.trailing_ids = [space_id] if is_openvla and space_id is not None else []

    def ids(self, instruction: str) -> list[int]:
        """Returns the tokens of one prompt, without padding; raises ConfigError when they do not fit."""
        text = self.template.text(instruction)
        words = self.tokenizer.encode(text, add_special_tokens=False).ids
        if words[-len(self.trailing_ids) :] != self.trailing_ids:
            words = words + self.trailing_ids
        ids = [self.bos_id, *words]
        if len(ids) > self.max_tokens:
            raise ConfigError(
                f"the instruction {instruction!r} takes {len(ids)} tokens; the model reads "
                f"{self.max_tokens}; shorten it"
            )
        return ids

    def row(self, instruction: str, action_ids: Sequence[int]) -> PromptRow:
        """Returns a training example: the prompt, then the action tokens and the end token as its answer.

        Raises:
            ConfigError: the prompt alone does not fit. The answer is not counted: it comes after `max_tokens`.
        """
        answer = [*action_ids, first_id(self.tokenizer, (EOS, "</s>"))]
        return PromptRow.of((self.ids(instruction), False), (answer, True))

    def __call__(self, instructions: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Returns ids (batch, max_tokens), right-padded, and which of them are not padding."""
        rows = [self.ids(instruction) for instruction in instructions]
        ids = np.full((len(rows), self.max_tokens), self.pad_id, dtype=np.int64)
        valid = np.zeros(ids.shape, dtype=np.bool_)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            valid[index, : len(row)] = True
        return ids, valid
