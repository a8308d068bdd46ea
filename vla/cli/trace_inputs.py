"""What `vla describe trace=true` shows a model: a picture, an instruction, and what the model's actions would mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from vla.checkpoints import native
from vla.cli.backbones import (
    SMALL_BACKBONES,
    Family,
    backbone_config,
    build_backbone,
    family_of,
)
from vla.cli.trace_actions import ActionMeaning
from vla.errors import ConfigError
from vla.models.backbones.gemma4 import Gemma4
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.qwen2_vl import Qwen2VL
from vla.tokenizers.action_bins import ActionLayout
from vla.tokenizers.action_tokens import action_vocabulary, extend_with_actions
from vla.tokenizers.loc_seg import CODEWORD_TOKENS, LOCATION_TOKENS
from vla.tokenizers.prompt_chat import GEMMA4, QWEN2_VL, ChatFormat, ChatPrompts, Picture, user
from vla.tokenizers.prompt_paligemma import PaliGemmaPrompts
from vla.tokenizers.text import train_text_tokenizer
from vla.types import TABLETOP, Observation

INSTRUCTION = "pick up the red cube"
PICTURE_SIZE = (48, 64)  # rows x columns of the test picture, pixels
SEED = 1_000_000  # of the scene: the first that no training has seen
MAX_PROMPT_TOKENS = 512


@dataclass(kw_only=True)
class PrismaticInputs:
    """Arguments of a Prismatic model, a batch of one."""

    model: Prismatic
    images: Tensor
    text_ids: Tensor
    text_valid: Tensor
    state: Tensor | None
    meaning: ActionMeaning
    instruction: str
    source: str  # of the pictures


@dataclass(kw_only=True)
class SequenceInputs:
    """Arguments of the other families, a batch of one."""

    model: PaliGemma | Qwen2VL | Gemma4
    picture_shape: tuple[int, ...]
    pictures: dict[str, Tensor]  # what `embed` takes after ids and valid, by what it is
    ids: Tensor
    valid: Tensor
    image_id: int
    meaning: ActionMeaning


def of_checkpoint(directory: Path) -> PrismaticInputs:
    """Returns a checkpoint's model with a scene of the simulated table, or test pictures if it is for another arm."""
    loaded = native.load(directory)
    contract, config = loaded.contract, loaded.model.config
    body = contract.embodiment
    if body.name == TABLETOP.name:
        observation, source = rendered(config.image_size), "rendered, scene of seed 1000000"
        pictures = np.stack([observation.images[name] for name in body.camera_names])
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        state = contract.state_statistics.normalize(observation.state)
        instruction = observation.instruction
    else:
        images, source = (
            torch.stack([_test_picture(config.image_size)] * config.num_views),
            "test pictures",
        )
        state, instruction = np.zeros(config.state_width, np.float32), INSTRUCTION
    ids, valid = loaded.prompt_encoder([instruction])
    return PrismaticInputs(
        model=loaded.model,
        images=images[None].contiguous(),
        text_ids=torch.from_numpy(ids),
        text_valid=torch.from_numpy(valid),
        state=torch.from_numpy(state)[None] if config.state_width else None,
        meaning=ActionMeaning(
            spec=body.action_spec,
            vocabulary=config.action_vocabulary(),
            statistics=contract.action_statistics,
        ),
        instruction=instruction,
        source=source,
    )


def of_backbone(name: str) -> PrismaticInputs | SequenceInputs:
    """Returns a small backbone with random weights and a test picture.

    Raises:
        ConfigError: no backbone has this name, or it is a released one.
    """
    config = backbone_config(name)
    if name not in SMALL_BACKBONES:
        raise ConfigError(
            f"tracing runs the model, and {name} has no weights here; choose one of {', '.join(SMALL_BACKBONES)}"
        )
    torch.manual_seed(0)
    if family_of(config) is Family.PRISMATIC:
        return _prismatic(name)
    return _sequence(name, family_of(config))


def _prismatic(name: str) -> PrismaticInputs:
    tokenizer = train_text_tokenizer([INSTRUCTION])
    model = build_backbone(SMALL_BACKBONES[name](tokenizer.get_vocab_size()))
    assert isinstance(model, Prismatic)
    config = model.config
    ids = torch.tensor([tokenizer.encode(INSTRUCTION).ids])
    return PrismaticInputs(
        model=model,
        images=torch.stack([_test_picture(config.image_size)] * config.num_views)[None],
        text_ids=ids,
        text_valid=torch.ones_like(ids, dtype=torch.bool),
        state=torch.zeros(1, config.state_width) if config.state_width else None,
        meaning=ActionMeaning(spec=TABLETOP.action_spec, vocabulary=config.action_vocabulary()),
        instruction=INSTRUCTION,
        source="test pictures, random weights",
    )


def _sequence(name: str, family: Family) -> SequenceInputs:
    tokenizer = _tokenizer(family)
    config = replace(
        SMALL_BACKBONES[name](tokenizer.get_vocab_size()),
        image_id=tokenizer.token_to_id(_IMAGE[family]),
    )  # type: ignore[call-arg]
    model = build_backbone(config)
    picture = _test_picture(*PICTURE_SIZE)
    match model:
        case PaliGemma():
            pictures = {"resized": model.config.prepare_pictures([picture])}
            prompts = PaliGemmaPrompts(tokenizer, model.config.num_image_tokens)
            row = prompts.row(INSTRUCTION)
        case Qwen2VL():
            packed = model.config.prepare_pictures([picture])
            pictures = {
                "patches (values)": packed.pixels,
                "grid (steps, rows, columns)": packed.grids,
            }
            row = _chat_row(tokenizer, QWEN2_VL, packed.num_tokens[0])
        case Gemma4():
            padded = model.config.prepare_pictures([picture])
            pictures = {
                "patches, filled up (values)": padded.pixels,
                "their places (column, row)": padded.positions,
            }
            row = _chat_row(tokenizer, GEMMA4, padded.num_tokens[0])
        case _:
            raise TypeError(f"{type(model).__name__} has no prompt of image placeholders")
    ids = torch.tensor([row.ids])
    width = TABLETOP.action_spec.width
    return SequenceInputs(
        model=model,
        picture_shape=tuple(picture.shape),
        pictures=pictures,
        ids=ids,
        valid=torch.ones_like(ids, dtype=torch.bool),
        image_id=model.config.image_id,
        meaning=ActionMeaning(
            spec=TABLETOP.action_spec,
            vocabulary=action_vocabulary(tokenizer, ActionLayout.NEW_256, width),
        ),
    )


def _chat_row(tokenizer: Tokenizer, chat_format: ChatFormat, num_image_tokens: int) -> Any:
    return ChatPrompts(tokenizer, chat_format).row([user(Picture(num_image_tokens), INSTRUCTION)])


_IMAGE = {
    Family.PALIGEMMA: "<image>",
    Family.QWEN2_VL: QWEN2_VL.image,
    Family.GEMMA4: GEMMA4.image,
}


def _tokenizer(family: Family) -> Tokenizer:
    """Bytes and a few words, the special tokens of the family, and 256 action tokens."""
    tokenizer = train_text_tokenizer([INSTRUCTION])
    names: list[str | None] = ["<image>", *LOCATION_TOKENS, *CODEWORD_TOKENS]
    if family is not Family.PALIGEMMA:
        chat = QWEN2_VL if family is Family.QWEN2_VL else GEMMA4
        names = [chat.turn_start, chat.turn_end, chat.image, chat.image_start, chat.image_end]
        names += [chat.pad, chat.video, chat.beginning]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names if name])
    return extend_with_actions(tokenizer, ActionLayout.NEW_256, TABLETOP.action_spec.width)


def _test_picture(rows: int, columns: int | None = None) -> Tensor:
    """A dark square on a ground that grows redder to the right and greener downwards."""
    columns = columns or rows
    picture = torch.zeros(3, rows, columns, dtype=torch.uint8)
    picture[0] = torch.linspace(0, 255, columns).to(torch.uint8)
    picture[1] = torch.linspace(0, 255, rows).to(torch.uint8)[:, None]
    picture[:, rows // 3 : 2 * rows // 3, columns // 3 : 2 * columns // 3] = 20
    return picture


def rendered(image_size: int) -> Observation:
    """Returns what the cameras of the simulated table see in the scene of SEED, and what is asked of the arm."""
    import envs
    from envs.config import EnvConfig

    env = envs.make(EnvConfig(image_size=image_size))
    try:
        raw, _ = env.reset(seed=SEED)
        return Observation(**raw)
    finally:
        env.close()
