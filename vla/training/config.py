"""What one training run is: data, optimisation, schedule, stage and bookkeeping, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vla.errors import ConfigError
from vla.losses.flow_times import FlowTimes
from vla.models.action_config import ActionDecoding
from vla.models.backbones.variant import Variant
from vla.tokenizers.action_bins import ActionLayout
from vla.tokenizers.prompt_answer import PromptFamily


class Precision(Enum):
    """Arithmetic of the forward and backward pass; weights and optimiser state are always fp32."""

    AUTO = "auto"  # bf16 where the processor multiplies it natively, else fp32
    FP32 = "fp32"
    BF16 = "bf16"


class Part(Enum):
    """The parts of a backbone that a stage can freeze."""

    VISION = "vision"
    CONNECTOR = "connector"
    DECODER = "decoder"


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3  # peak
    final_learning_rate_fraction: float = 0.02  # of the peak, reached at the last step
    warmup_steps: int = 200  # linear from zero
    weight_decay: float = 0.05  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.98
    gradient_clip_norm: float = 1.0  # global norm
    ema_decay: float = 0.999  # moving average of the weights, the ones that act; 0 turns it off


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the named loss terms."""

    sigma_bins: float = 2.0  # width of the Gaussian target over neighbouring bins; 0 = one-hot
    pointing_weight: float = 0.2  # which image token shows the named object
    offset_weight: float = 0.2  # where the named object is, seen from the tool
    z_weight: float = 0.0  # token by token: mean squared log-partition; 1e-4 is usual
    text_weight: float = 1.0  # answers about scenes, where data.scene_fraction mixes them in
    flow_times: FlowTimes = FlowTimes.BETA  # times that a flow head is trained at


@dataclass(kw_only=True)
class BackboneConfig:
    """The model of a run that does not go on from a policy: small, for CPUs, and of any family.

    With init_from= a model that answers, its shape and tokenizer hold, and of these settings only how it acts counts.
    """

    family: PromptFamily = PromptFamily.PRISMATIC  # which kind of backbone
    variant: Variant = field(default_factory=Variant)  # what an experiment changes about it
    keeps_weights: bool = True  # of init_from= a model that answers; false: its shape alone
    decoding: ActionDecoding = (
        ActionDecoding.PARALLEL
    )  # bins at once or token by token, pieces of a chunk, or numbers
    layout: ActionLayout = ActionLayout.PER_DIMENSION  # which ids stand for bins
    fast_scale: float = 20.0  # decoding=fast: larger is finer, and takes more tokens
    fast_vocab_size: int = 1024  # decoding=fast: ids there are room for
    grounding: bool = True  # also say where the named object is (not token by token)
    image_size: int = 64  # pixels; dataset pictures of another size are resized
    patch_size: int = 16  # pixels an image token covers
    width: int = 192  # of the decoder
    depth: int = 5  # blocks of the decoder
    vision_width: int | None = None  # of each tower; null: 96 in prismatic, else 128 (woven: 192)
    vision_depth: int | None = None  # blocks of each tower; null: 3 in paligemma, else 2
    chunk_length: int = 4  # actions predicted at once
    text_vocab_size: int = 512  # of prismatic's tokenizer, trained on the instructions
    max_text_tokens: int = 20  # of an instruction, BOS included; views and turns come on top
    prompt: str = "plain"  # template around the instruction: plain or openvla


@dataclass(kw_only=True)
class DataConfig:
    """What a run trains on."""

    roots: list[str] = field(default_factory=list)  # LeRobot dataset folders
    weights: list[float] | None = None  # passes over each dataset per epoch; null = one each
    cameras: list[str] = field(
        default_factory=lambda: ["front", "wrist"]
    )  # observation.images.<name>
    validation_fraction: float = 0.03  # of the scenes, never trained on
    brightness_jitter: float = 0.0  # factor 1 - b .. 1 + b
    contrast_jitter: float = 0.0  # likewise
    saturation_jitter: float = 0.0  # likewise
    unknown_words: float = (
        0.0  # share of an instruction's words replaced by made-up ones: new words then do less harm
    )
    statistics_from_data: bool = (
        False  # with init_from: new action statistics instead of the checkpoint's
    )
    # folders of labelled scenes to learn words from beside actions; with scene_fraction=0 they only measure
    # how much of its answers the model keeps
    scenes: list[str] = field(default_factory=list)
    scene_fraction: float = 0.0  # share of the rows of every batch; the others are robot frames
    questions_per_picture: int = 4  # about a scene; 1 where they cannot share their picture
    mask_codec: str = ""  # checkpoint of the codec; "" leaves segmentation out of the questions


@dataclass(kw_only=True)
class WandbConfig:
    """Weights and Biases; offline unless the machine is logged in."""

    enabled: bool = False  # also log there
    project: str = "vla"  # project name


@dataclass(kw_only=True)
class TrainingConfig:
    """Optimisation and bookkeeping of `vla.training.loop.train`."""

    steps: int = 20_000  # optimiser steps
    batch_size: int = 128  # samples a step
    max_seconds: float | None = (
        None  # wall clock budget; the schedule then ends at whichever comes first
    )
    max_cpu_seconds: float | None = None  # processor time likewise, for runs that are compared
    seed: int = 0  # weights, order of samples, augmentation
    precision: Precision = Precision.AUTO
    device: str = "auto"  # auto, cpu, cuda or cuda:N; auto = cuda when there is one
    num_threads: int = 0  # 0 = one per core
    compile: bool = (
        False  # torch.compile the model; needs a C++ compiler, pays off after some thousand steps
    )
    frozen_parts: list[Part] = field(default_factory=list)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    log_every: int = 50  # steps
    validate_every: int = 1000  # steps
    validation_batches: int = 20
    checkpoint_every: int = 1000  # steps

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} must be at least 1; got {getattr(self, name)}")
        if not 0 <= self.optim.ema_decay < 1:
            raise ConfigError(
                f"training.optim.ema_decay must lie in [0, 1); got {self.optim.ema_decay}"
            )


@dataclass(kw_only=True)
class RunConfig:
    """Everything `vla train` needs."""

    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    init_from: str = ""  # checkpoint to fine-tune: its shape, weights, tokenizer and statistics
    resume: bool = False  # go on with the last run, bit for bit
    wandb: WandbConfig = field(default_factory=WandbConfig)
