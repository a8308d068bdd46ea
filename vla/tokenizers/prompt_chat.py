"""Prompts of the models that converse, Qwen2-VL and Gemma 4: turns of text, pictures and clips.

    Qwen2-VL   <|im_start|>system \\n You are a helpful assistant. <|im_end|> \\n
               <|im_start|>user \\n <|vision_start|> <|image_pad|> * n <|vision_end|> text <|im_end|> \\n
               <|im_start|>assistant \\n ANSWER <|im_end|>
    Gemma 4    <bos> <|turn>system \\n text <turn|> \\n
               <|turn>user \\n <|image> <|image|> * n <image|> text <turn|> \\n
               <|turn>model \\n ANSWER <turn|>

The answer and its end token are what the model writes. A conversation that ends with the user's turn gets the
opening of the answer. Answers are tokenized apart from what precedes them, as they are when they are generated.
Text that spells a special token stays text where the tokenizer comes from `load_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from tokenizers import Tokenizer

from vla.errors import ConfigError
from vla.tokenizers.prompt_batch import Padding, PromptBatch, PromptRow, first_id, pad_prompts


class Role(Enum):
    """Whose turn it is."""

    SYSTEM = "system"
    USER = "user"
    MODEL = "model"


@dataclass(frozen=True)
class Picture:
    """A picture's place in a turn; `num_tokens` is what preprocessing says it takes."""

    num_tokens: int


@dataclass(frozen=True)
class Clip:
    """A video clip's place in a turn; `num_tokens` is what preprocessing says it takes."""

    num_tokens: int


Part = str | Picture | Clip


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one side says. The model's turn may be given as ids, such as action tokens."""

    role: Role
    parts: Sequence[Part | Sequence[int]]


def system(text: str) -> Turn:
    """Returns the opening instruction."""
    return Turn(role=Role.SYSTEM, parts=[text])


def user(*parts: Part) -> Turn:
    """Returns what the user says and shows, in order."""
    return Turn(role=Role.USER, parts=parts)


def model(answer: str | Sequence[int]) -> Turn:
    """Returns what the model answered, or is to learn to answer."""
    return Turn(role=Role.MODEL, parts=[answer])


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """The special tokens of one family, by name; ids are looked up in its tokenizer."""

    family: str
    role_names: Mapping[Role, str]
    turn_start: str
    turn_end: str
    image: str  # stands once for every image token
    image_start: str
    image_end: str
    video: str | None  # likewise; None where clips are not supported
    pad: str
    beginning: str | None = None
    default_system: str | None = None  # said where the conversation has no system turn
    answer_opening: Sequence[tuple[str, bool]] = ()  # before the last answer; True: a special token


QWEN2_VL = ChatFormat(
    # Source: chat_template.json of Qwen/Qwen2-VL-7B-Instruct; expansion in transformers 5.5.4, processing_qwen2_vl.py
    family="Qwen2-VL",
    role_names={Role.SYSTEM: "system", Role.USER: "user", Role.MODEL: "assistant"},
    turn_start="<|im_start|>",
    turn_end="<|im_end|>",
    image="<|image_pad|>",
    image_start="<|vision_start|>",
    image_end="<|vision_end|>",
    video="<|video_pad|>",
    pad="<|endoftext|>",
    default_system="You are a helpful assistant.",
)

GEMMA4 = ChatFormat(
    # Source: ai.google.dev/gemma/docs/core/prompt-formatting-gemma4 (the template itself is only on the hub);
    # expansion in transformers 5.5.4, processing_gemma4.py. E2B and E4B.
    family="Gemma 4",
    role_names={Role.SYSTEM: "system", Role.USER: "user", Role.MODEL: "model"},
    turn_start="<|turn>",
    turn_end="<turn|>",
    image="<|image|>",
    image_start="<|image>",
    image_end="<image|>",
    video=None,
    pad="<pad>",
    beginning="<bos>",
)

GEMMA4_LARGE = replace(
    # 12B, 26B and 31B open the answer with an empty thought when they are not to think. Source: the generation
    # prompt of their templates, as kept by ollama/ollama, model/renderers/testdata/gemma4_31b_chat_template.jinja2.
    GEMMA4,
    answer_opening=(("<|channel>", True), ("thought\n", False), ("<channel|>", True)),
)


class ChatPrompts:
    """Turns conversations into tokens."""

    def __init__(self, tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
        """Looks up the special tokens.

        Raises:
            CheckpointError: the tokenizer lacks one; it is of another family.
        """
        self.tokenizer, self.format = tokenizer, chat_format
        names = [
            chat_format.turn_start, chat_format.turn_end, chat_format.image, chat_format.image_start,
            chat_format.image_end, chat_format.pad, chat_format.video, chat_format.beginning,
            *(text for text, is_special in chat_format.answer_opening if is_special),
        ]  # fmt: skip
        self._ids = {name: first_id(tokenizer, [name]) for name in names if name is not None}
        self.image_id = self._ids[chat_format.image]
        self.video_id = None if chat_format.video is None else self._ids[chat_format.video]
        self.end_id = self._ids[chat_format.turn_end]
        self.pad_id = self._ids[chat_format.pad]

    def row(self, turns: Sequence[Turn]) -> PromptRow:
        """Returns the tokens of one conversation; it may end with the user's turn or the model's.

        Raises:
            ConfigError: a system turn that is not the first, or a clip for a family that reads none.
        """
        spec = self.format
        if spec.default_system is not None and (not turns or turns[0].role is not Role.SYSTEM):
            turns = [system(spec.default_system), *turns]
        if any(turn.role is Role.SYSTEM for turn in turns[1:]):
            raise ConfigError(
                "a system turn stands inside a conversation; it can only be the first"
            )
        row: list[tuple[Sequence[int], bool]] = []
        pending: list[int | str] = [] if spec.beginning is None else [self._ids[spec.beginning]]
        for index, turn in enumerate(turns):
            pending += [self._ids[spec.turn_start], spec.role_names[turn.role] + "\n"]
            if turn.role is Role.MODEL:
                opening = self._opening() if index == len(turns) - 1 else []
                row.append((self._encode([*pending, *opening]), False))
                row.append(([*self._encode(self._expand(turn)), self.end_id], True))
                pending = ["\n"]
            else:
                pending += [*self._expand(turn), self.end_id, "\n"]
        if not turns or turns[-1].role is not Role.MODEL:
            pending += [self._ids[spec.turn_start], spec.role_names[Role.MODEL] + "\n"]
            row.append((self._encode([*pending, *self._opening()]), False))
        return PromptRow.of(*row)

    def __call__(
        self,
        conversations: Sequence[Sequence[Turn]],
        *,
        max_tokens: int,
        padding: Padding = Padding.RIGHT,
    ) -> PromptBatch:
        """Returns a batch of conversations; raises ConfigError when one is longer than `max_tokens`."""
        rows = [self.row(turns) for turns in conversations]
        return pad_prompts(rows, pad_id=self.pad_id, max_tokens=max_tokens, padding=padding)

    def _opening(self) -> list[int | str]:
        return [
            self._ids[text] if is_special else text
            for text, is_special in self.format.answer_opening
        ]

    def _expand(self, turn: Turn) -> list[int | str]:
        """Text, and ids in place of pictures and clips."""
        spec, expanded = self.format, list[int | str]()
        for part in turn.parts:
            match part:
                case str():
                    expanded.append(part)
                case Picture() | Clip():
                    token_id = self.image_id if isinstance(part, Picture) else self.video_id
                    if token_id is None:
                        raise ConfigError(
                            f"{spec.family} prompts hold no clips; show its frames as pictures"
                        )
                    start, end = self._ids[spec.image_start], self._ids[spec.image_end]
                    expanded += [start, *([token_id] * part.num_tokens), end]
                case ids:
                    expanded += ids
        return expanded

    def _encode(self, pieces: Sequence[int | str]) -> list[int]:
        """Ids stay; neighbouring text is tokenized together."""
        ids: list[int] = []
        text = ""
        for piece in [*pieces, None]:
            if isinstance(piece, str):
                text += piece
                continue
            if text:
                ids += self.tokenizer.encode(text, add_special_tokens=False).ids
                text = ""
            if piece is not None:
                ids.append(piece)
        return ids
