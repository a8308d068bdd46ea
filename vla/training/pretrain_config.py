"""What one pretraining run is: its stage, its scenes, and what each stage chooses, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vla.data.crops import CropConfig
from vla.errors import ConfigError
from vla.models.self_distiller import PrototypeHeadConfig
from vla.training.config import TrainingConfig, WandbConfig
from vla.training.mask_codec_config import MaskCodecStageConfig
from vla.training.multimodal_config import MultimodalStageConfig


class Stage(Enum):
    """What is taught; the last two join what the others learn apart."""

    SIGLIP = "siglip"  # pictures and captions, a sigmoid on every pair
    CLIP = "clip"  # the same with a softmax over the batch
    DINOV2 = "dinov2"  # pictures alone, by self-distillation
    OBJECTS = "objects"  # pictures, by what every patch shows and where the whole of it lies
    TEXT = "text"  # the decoder on texts alone
    MASK_CODEC = "mask_codec"  # masks to 16 codes and back
    MULTIMODAL = "multimodal"  # connector and decoder on pictures with questions
    TRANSFER = "transfer"  # the same at higher resolution


class DecoderFamily(Enum):
    """Whose tiny decoder the text stage trains."""

    PRISMATIC = "prismatic"
    PALIGEMMA = "paligemma"
    QWEN2_VL = "qwen2_vl"
    GEMMA4 = "gemma4"


@dataclass(kw_only=True)
class TowerShape:
    """Size of the vision tower; the defaults fit `tiny_paligemma`, 96 x 2 x 16 fits the tiny Prismatic."""

    width: int = 128  # channels, a multiple of 32
    depth: int = 4  # blocks
    patch_size: int = 8  # pixels, a multiple of 8


@dataclass(kw_only=True)
class ContrastiveConfig:
    """Stages siglip and clip."""

    text_width: int = 128  # of the text tower, a multiple of 32
    text_depth: int = 3  # blocks of the text tower
    max_text_tokens: int = 64  # longer captions are cut
    start_bias: float | None = (
        None  # of the sigmoid; null = what fits the untrained towers, SigLIP: -10
    )
    chunk_size: int | None = None  # texts the sigmoid loss takes at a time; null = all
    retrieval_pool: int = 64  # pictures and captions that validation searches among
    retrieval_queries: int = 512  # held-out pictures that validation asks for


@dataclass(kw_only=True)
class SelfDistillationConfig:
    """Stage dinov2. Defaults follow Oquab et al. 2023, shrunk to pictures of 64 px."""

    head: PrototypeHeadConfig = field(
        default_factory=lambda: PrototypeHeadConfig(
            num_prototypes=512, hidden_width=256, bottleneck_width=64
        )
    )
    crops: CropConfig = field(default_factory=CropConfig)
    patch_weight: float = 1.0  # of the patch objective (iBOT)
    spread_weight: float = 0.1  # of KoLeo
    uses_sinkhorn: bool = True  # False: the teacher is centred by a moving mean (DINO)
    student_temperature: float = 0.1
    teacher_temperature: list[float] = field(default_factory=lambda: [0.04, 0.07])  # warmed up
    teacher_warmup_steps: int = 1000
    teacher_momentum: float = 0.992  # at the start; grows to 1 along a cosine
    resting_steps: int = 200  # steps at the start in which the prototypes do not move
    least_spread: float = (
        0.05  # of unit-length class tokens (1: all over the sphere); less is a collapse
    )
    collapse_grace_steps: int = 500  # before which nothing is called a collapse
    probe_pictures: int = (
        600  # held-out pictures whose patches validation names; half of them to learn
    )

    def __post_init__(self) -> None:
        if len(self.teacher_temperature) != 2 or min(self.teacher_temperature) <= 0:
            raise ConfigError(
                f"self_distillation.teacher_temperature = {self.teacher_temperature}; give [first, last], both above 0"
            )
        if not 0 <= self.teacher_momentum <= 1:
            raise ConfigError(
                f"self_distillation.teacher_momentum = {self.teacher_momentum}; it must lie in [0, 1]"
            )


@dataclass(kw_only=True)
class TextStageConfig:
    """Stage text."""

    family: DecoderFamily = DecoderFamily.PRISMATIC
    max_tokens: int = 64  # of a packed row
    validation_texts: int = 4000  # held-out texts that perplexity is measured on


@dataclass(kw_only=True)
class PretrainConfig:
    """Everything `vla pretrain` needs."""

    stage: Stage = Stage.SIGLIP
    scenes: list[str] = field(default_factory=list)  # folders of labelled scenes
    image_size: int = 64  # pixels; pictures of another size are stretched to this square
    vocab_size: int = (
        2048  # of the tokenizer trained on the scenes' texts, places and masks included
    )
    tokenizer_from: str = ""  # checkpoint whose tokenizer is used instead of a new one
    tower: TowerShape = field(default_factory=TowerShape)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    self_distillation: SelfDistillationConfig = field(default_factory=SelfDistillationConfig)
    text: TextStageConfig = field(default_factory=TextStageConfig)
    mask_codec: MaskCodecStageConfig = field(default_factory=MaskCodecStageConfig)
    multimodal: MultimodalStageConfig = field(default_factory=MultimodalStageConfig)
    resume: bool = False  # go on with the last run of this stage, bit for bit
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        if self.image_size < 1 or self.image_size % self.tower.patch_size:
            raise ConfigError(
                f"image_size = {self.image_size}; the tower cuts patches of {self.tower.patch_size} px, "
                "so it must be a positive multiple of that"
            )
