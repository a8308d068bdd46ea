"""From pictures and prompts to words, boxes and masks: everything comes out as text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vla.checkpoints.answering import Answerable
from vla.data.mask_crops import paste_mask
from vla.errors import ConfigError
from vla.inference.generate import generate
from vla.tokenizers.loc_seg import LOCATION_TOKENS, NUM_LOCATIONS, decode_objects
from vla.tokenizers.prompt_batch import Padding, pad_prompts

_BATCH = 64  # questions read at a time
_NEARBY = 8.0  # locations that are as good as one another, as a standard deviation
_REACH = 24  # locations further away than this do not count


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundObject:
    """One object that an answer locates.

    Attributes:
        label: what the answer calls it.
        box: y_min, x_min, y_max, x_max in shares of the picture.
        confidence: product of the probabilities of the tokens that wrote it.
        mask: (H, W) of the picture asked about; None for a detection, or without a codec.
    """

    label: str
    box: tuple[float, float, float, float]
    confidence: float
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says to one prompt.

    Attributes:
        text: as it was generated, places and masks spelled out.
        probability: product of the probabilities of all its tokens, the end included.
        is_whole: whether it came to its end within the tokens allowed.
        objects: that it locates.
    """

    text: str
    probability: float
    is_whole: bool
    objects: list[FoundObject] = field(default_factory=list)


@torch.inference_mode()
def answer(
    model: Answerable,
    pictures: Sequence[Tensor],
    instructions: Sequence[str],
    *,
    max_tokens: int = 64,
) -> list[Answer]:
    """Returns the likeliest answer to each instruction, token by token.

    Args:
        model: on any device; put into eval mode.
        pictures: one for each instruction: (3, H, W), or a clip (T, 3, H, W), uint8, of any sizes.
        instructions: such as "detect red cube", "segment the cube on the left", "answer en how many balls are there?"
            or "caption en".
        max_tokens: that an answer may have, its end included.

    Raises:
        ConfigError: a prompt is empty or too long, or there are not as many pictures as instructions.
    """
    if len(pictures) != len(instructions):
        raise ConfigError(
            f"{len(pictures)} pictures were given for {len(instructions)} prompts; expected one each"
        )
    for text in instructions:
        _check_length(model, text)
    model.backbone.eval()
    answers: list[Answer] = []
    for start in range(0, len(instructions), _BATCH):
        part = slice(start, start + _BATCH)
        answers += _answer_batch(model, pictures[part], instructions[part], max_tokens)
    return answers


def _answer_batch(
    model: Answerable, pictures: Sequence[Tensor], instructions: Sequence[str], max_tokens: int
) -> list[Answer]:
    backbone, prompts = model.backbone, model.prompts
    device = next(backbone.parameters()).device
    rows = [
        prompts.row(
            text,
            num_image_tokens=backbone.num_image_tokens(picture.shape),
            is_clip=picture.dim() == 4,
        )
        for picture, text in zip(pictures, instructions, strict=True)
    ]
    limit = backbone.decoder.config.max_tokens
    batch = pad_prompts(rows, pad_id=prompts.pad_id, max_tokens=limit, padding=Padding.LEFT)
    prefix = backbone.embed_pictures(
        torch.from_numpy(batch.ids).to(device),
        torch.from_numpy(batch.valid).to(device),
        [[picture.to(device)] for picture in pictures],
    )
    first_location = model.tokenizer.token_to_id(LOCATION_TOKENS[0])
    generated = generate(
        backbone.decoder,
        prefix,
        max_tokens=max_tokens,
        stop_ids=[prompts.end_id],
        read_logits=lambda hidden: settled_places(backbone.decoder.logits(hidden), first_location),
    )
    columns = (generated.tokens, generated.probabilities, generated.valid)
    tokens, probabilities, valid = (column.cpu() for column in columns)
    return [
        _read(model, tokens[row][valid[row]].tolist(), probabilities[row][valid[row]], picture)
        for row, picture in enumerate(pictures)
    ]


def settled_places(
    logits: Float[Tensor, "*batch vocabulary"], first_location: int
) -> Float[Tensor, "*batch vocabulary"]:
    """Returns the logits with all that location tokens have in sum on the one of them that is likeliest.

    A model that is sure of a place to within a few hundredths has no location token that is likely by itself, and a
    single word ("none") could be likelier than each while it is far less likely than all. So whether a location comes
    is decided by their sum; and which one, by the sum over its neighbours, a Gaussian of 8 in 1023 of the side wide.
    """
    places = slice(first_location, first_location + NUM_LOCATIONS)
    located = logits[..., places].float()
    shares = located.softmax(dim=-1).reshape(-1, 1, NUM_LOCATIONS)
    nearby = F.conv1d(shares, _neighbours(logits.device), padding=_REACH).reshape(located.shape)
    likeliest = nearby.argmax(dim=-1, keepdim=True)
    settled = logits.float().clone()
    settled[..., places] = torch.full_like(located, -torch.inf).scatter(
        -1, likeliest, located.logsumexp(dim=-1, keepdim=True)
    )
    return settled


def _neighbours(device: torch.device) -> Tensor:
    """How much the locations before and after one count for it (1, 1, 2 reach + 1)."""
    offsets = torch.arange(-_REACH, _REACH + 1, device=device, dtype=torch.float32)
    return (-0.5 * (offsets / _NEARBY).square()).exp()[None, None]


def _read(model: Answerable, tokens: list[int], probabilities: Tensor, picture: Tensor) -> Answer:
    is_whole = tokens[-1] == model.prompts.end_id
    words = tokens[:-1] if is_whole else tokens
    return Answer(
        text=model.prompts.text(words),
        probability=float(probabilities.prod()),
        is_whole=is_whole,
        objects=[
            found
            for part in _parts(words, model.tokenizer.token_to_id(LOCATION_TOKENS[0]))
            for found in _objects(model, words[part], probabilities[part], picture)
        ],
    )


def _objects(
    model: Answerable, tokens: list[int], probabilities: Tensor, picture: Tensor
) -> list[FoundObject]:
    """The one object that a part of an answer describes, or none where it is not well formed."""
    return [
        FoundObject(
            label=item.label,
            box=item.box,
            confidence=float(probabilities.prod()),
            mask=_mask(model, item.codewords, item.box, picture),
        )
        for item in decode_objects(model.prompts.text(tokens))[:1]
    ]


def _mask(
    model: Answerable,
    codewords: tuple[int, ...] | None,
    box: tuple[float, float, float, float],
    picture: Tensor,
) -> NDArray[np.bool_] | None:
    if codewords is None or model.codec is None:
        return None
    probabilities = model.codec.eval().decode(torch.tensor([codewords]))[0]
    height, width = picture.shape[-2:]
    return paste_mask(probabilities.float().cpu().numpy(), box, height, width)


def _parts(tokens: Sequence[int], first_location: int) -> list[slice]:
    """Where each object of an answer begins and ends: it begins with a run of location tokens."""
    is_location = [first_location <= token < first_location + NUM_LOCATIONS for token in tokens]
    starts = [
        index
        for index, here in enumerate(is_location)
        if here and (index == 0 or not is_location[index - 1])
    ]
    return [slice(a, b) for a, b in itertools.pairwise([*starts, len(tokens)])]


def _check_length(model: Answerable, text: str) -> None:
    if not text.strip():
        raise ConfigError(
            'the prompt is empty; ask something, such as "detect red cube" or "caption en"'
        )
    length, limit = len(model.prompts.places.ids(text)), model.max_instruction_tokens
    if length > limit:
        raise ConfigError(
            f"the prompt takes {length} tokens, and this model reads {limit}; shorten it: {text[:40]!r}..."
        )
