"""PaliGemma's prompts: pictures, instruction, answer.

    <image> * N   <bos>   instruction   \\n   answer   <eos>
    |------------- prefix, read in both directions ------|---- suffix, causal ----|

Source: transformers 5.5.4, processing_paligemma.py; google-research/big_vision, configs/proj/paligemma/README.md.
Instructions are commands such as "detect red cube", "segment red cube" or "answer en what is on the table?".
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from vla.errors import ConfigError
from vla.tokenizers.loc_seg import PlaceVocabulary
from vla.tokenizers.prompt_batch import Padding, PromptBatch, PromptRow, first_id, pad_prompts


class PaliGemmaPrompts:
    """Turns instructions, and in training answers, into tokens."""

    def __init__(self, tokenizer: Tokenizer, num_image_tokens: int) -> None:
        """Looks up the special tokens.

        Args:
            tokenizer: PaliGemma's own.
            num_image_tokens: tokens a picture takes: 256 at 224 px, 1024 at 448, 4096 at 896.

        Raises:
            CheckpointError: the tokenizer lacks a token; it is of another family.
        """
        self.num_image_tokens = num_image_tokens
        self.places = PlaceVocabulary(tokenizer)
        self.image_id = first_id(tokenizer, ["<image>"])
        self.bos_id = first_id(tokenizer, ["<bos>"])
        self.eos_id = first_id(tokenizer, ["<eos>"])
        self.pad_id = first_id(tokenizer, ["<pad>"])

    def row(
        self, instruction: str, answer: str | Sequence[int] | None = None, *, num_images: int = 1
    ) -> PromptRow:
        """Returns the tokens of one example.

        Args:
            instruction: the prefix's text; "<loc0001>" and "<seg001>" are one token each.
            answer: the suffix: text, or ids such as action tokens; None leaves it to be generated.
            num_images: pictures before the text.
        """
        pictures = [self.image_id] * (self.num_image_tokens * num_images)
        prefix = [*pictures, self.bos_id, *self.places.ids(instruction + "\n")]
        if answer is None:
            return PromptRow.of((prefix, False))
        suffix = self.places.ids(answer) if isinstance(answer, str) else list(answer)
        return PromptRow.of((prefix, False), ([*suffix, self.eos_id], True))

    def __call__(
        self,
        instructions: Sequence[str],
        answers: Sequence[str | Sequence[int]] | None = None,
        *,
        max_tokens: int,
        num_images: int = 1,
        padding: Padding = Padding.RIGHT,
    ) -> PromptBatch:
        """Returns a batch of examples; raises ConfigError when one is longer than `max_tokens`."""
        if answers is not None and len(answers) != len(instructions):
            raise ConfigError(
                f"{len(answers)} answers were given for {len(instructions)} instructions; expected one each"
            )
        rows = [
            self.row(text, None if answers is None else answers[index], num_images=num_images)
            for index, text in enumerate(instructions)
        ]
        return pad_prompts(rows, pad_id=self.pad_id, max_tokens=max_tokens, padding=padding)
