"""What `vla describe trace=true` shows a model: a picture, an instruction, and what the model's actions would mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vla.checkpoints import native
from vla.cli.backbones import SMALL_BACKBONES, backbone_config
from vla.cli.describe.trace_actions import ActionMeaning
from vla.errors import ConfigError
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.families import Family, build_backbone, family_of
from vla.models.backbones.paligemma_config import PaliGemmaConfig
from vla.models.backbones.prismatic_config import PrismaticConfig
from vla.tokenizers.action_bins import ActionLayout
from vla.tokenizers.prompt import PromptTemplate
from vla.tokenizers.prompt_action import InstructionPrompts
from vla.tokenizers.prompt_chat import GEMMA4, QWEN2_VL
from vla.tokenizers.scene_vocabulary import PALIGEMMA_IMAGE, train_scene_tokenizer
from vla.types import TABLETOP, Observation

INSTRUCTION = "pick up the red cube"
PICTURE_SIZE = (48, 64)  # rows x columns of the test picture, pixels
SEED = 1_000_000  # of the scene: the first that no training has seen
_IMAGE = {
    Family.PALIGEMMA: PALIGEMMA_IMAGE,
    Family.QWEN2_VL: QWEN2_VL.image,
    Family.GEMMA4: GEMMA4.image,
}


@dataclass(kw_only=True)
class TraceInputs:
    """Arguments of a model that acts, a batch of one."""

    model: VisionLanguageAction
    images: Tensor
    text_ids: Tensor
    text_valid: Tensor
    state: Tensor | None
    meaning: ActionMeaning
    instruction: str
    source: str  # of the pictures


def of_checkpoint(directory: Path) -> TraceInputs:
    """Returns a checkpoint's model with a scene of the simulated table, or test pictures if it is for another arm."""
    loaded = native.load(directory)
    contract, actions = loaded.contract, loaded.model.config
    body = contract.embodiment
    if body.name == TABLETOP.name:
        observation, source = rendered(contract.image_size), "rendered, scene of seed 1000000"
        pictures = np.stack([observation.images[name] for name in body.camera_names])
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        state = contract.state_statistics.normalize(observation.state)
        instruction = observation.instruction
    else:
        images = torch.stack([_test_picture(contract.image_size)] * len(body.camera_names))
        state, instruction = np.zeros(actions.state_width, np.float32), INSTRUCTION
        source = "test pictures"
    ids, valid = loaded.prompt_encoder([instruction])
    return TraceInputs(
        model=loaded.model,
        images=images[None].contiguous(),
        text_ids=torch.from_numpy(ids),
        text_valid=torch.from_numpy(valid),
        state=torch.from_numpy(state)[None] if actions.state_width else None,
        meaning=ActionMeaning(
            spec=body.action_spec,
            vocabulary=actions.action_vocabulary(),
            statistics=contract.action_statistics,
            fast=contract.fast,
            end_id=loaded.prompt_encoder.end_id,
        ),
        instruction=instruction,
        source=source,
    )


def of_backbone(name: str) -> TraceInputs:
    """Returns a small backbone that acts, with random weights and a test picture.

    Prismatic decodes a chunk in one pass, as the shipped policy does; the others one action, token by token.

    Raises:
        ConfigError: no backbone has this name, or it is a released one.
    """
    family = family_of(backbone_config(name))
    if name not in SMALL_BACKBONES:
        raise ConfigError(
            f"tracing runs the model, and {name} has no weights here; choose one of {', '.join(SMALL_BACKBONES)}"
        )
    torch.manual_seed(0)
    tokenizer = train_scene_tokenizer([INSTRUCTION] * 2)
    config = SMALL_BACKBONES[name](tokenizer.get_vocab_size())
    actions = ActionConfig(text_vocab_size=tokenizer.get_vocab_size())
    if not isinstance(config, PrismaticConfig):
        actions = replace(
            actions, decoding=ActionDecoding.AUTOREGRESSIVE, layout=ActionLayout.NEW_256, chunk_length=1,
            state_width=0, grounding=False,
        )  # fmt: skip
        decoder = replace(config.decoder, vocab_size=actions.num_token_rows)
        config = replace(config, decoder=decoder, image_id=tokenizer.token_to_id(_IMAGE[family]))
    is_square = isinstance(config, PrismaticConfig | PaliGemmaConfig)
    picture = _test_picture(*([config.image_size] if is_square else PICTURE_SIZE))
    num_views = config.num_views if isinstance(config, PrismaticConfig) else 1
    backbone = build_backbone(config)
    prompts = InstructionPrompts(
        tokenizer,
        family,
        PromptTemplate.PLAIN,
        max_text_tokens=20,
        image_tokens=[backbone.num_image_tokens(picture.shape)] * num_views,
    )
    ids = torch.tensor([prompts.ids(INSTRUCTION)])
    return TraceInputs(
        model=VisionLanguageAction(backbone, actions),
        images=torch.stack([picture] * num_views)[None],
        text_ids=ids,
        text_valid=torch.ones_like(ids, dtype=torch.bool),
        state=torch.zeros(1, actions.state_width) if actions.state_width else None,
        meaning=ActionMeaning(spec=TABLETOP.action_spec, vocabulary=actions.action_vocabulary()),
        instruction=INSTRUCTION,
        source="test pictures, random weights",
    )


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
