"""A model that answers, small enough to learn eight pictures by heart in seconds."""

from dataclasses import replace

import torch

from vla.checkpoints.answering import Answerable
from vla.data.scene_rows import SceneRow
from vla.data.scene_tasks import TaskWeights
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.paligemma_config import tiny_paligemma
from vla.models.mask_codec import MaskCodec, MaskCodecConfig
from vla.models.vision import presets
from vla.tokenizers.prompt_answer import AnswerPrompts, PromptFamily
from vla.tokenizers.scene_vocabulary import SCENE_TOKENS, train_scene_tokenizer
from vla.training.config import OptimConfig, TrainingConfig
from vla.training.multimodal_config import MultimodalStageConfig
from vla.training.pretrain_config import PretrainConfig, Stage, TowerShape
from vla.training.scene_sources import scene_corpus


def tiny_answerable(rows: list[SceneRow], *, has_codec: bool = False) -> Answerable:
    """PaliGemma of 0.3 million parameters for pictures of 16 px, which are four tokens."""
    tokenizer = train_scene_tokenizer(scene_corpus(rows), 300)
    torch.manual_seed(0)
    shape = tiny_paligemma(len(SCENE_TOKENS) + 300)
    decoder = replace(shape.decoder, width=96, depth=2, head_dim=24, mlp_width=192, max_tokens=512)
    config = replace(
        shape,
        image_size=16,
        tower=presets.tiny_siglip(32, 1, 8),
        decoder=decoder,
        image_id=tokenizer.token_to_id("<image>"),
        pictures_apart=True,
    )
    return Answerable(
        backbone=PaliGemma(config),
        tokenizer=tokenizer,
        prompts=AnswerPrompts(tokenizer, PromptFamily.PALIGEMMA),
        codec=MaskCodec(MaskCodecConfig()).eval() if has_codec else None,
        max_instruction_tokens=24,
    )


def stage_config(steps: int, **training: object) -> PretrainConfig:
    """Stage 2 on eight pictures a step, without anything that a tiny run does not need."""
    settings = {
        "steps": steps,
        "batch_size": 8,
        "validate_every": 10_000,
        "checkpoint_every": 10_000,
        "validation_batches": 1,
        "num_threads": 1,
        "optim": OptimConfig(learning_rate=4e-3, warmup_steps=5, ema_decay=0.0, weight_decay=0.0),
    }
    return PretrainConfig(
        stage=Stage.MULTIMODAL,
        image_size=16,
        tower=TowerShape(width=32, depth=1, patch_size=8),
        training=TrainingConfig(**{**settings, **training}),
        multimodal=MultimodalStageConfig(
            tasks_per_picture=4,
            location_sigma=0.0,
            measured_pictures=4,
            weights=TaskWeights(caption=1, answer=2, detect=1, segment=1, absent_fraction=0.0),
        ),
    )
