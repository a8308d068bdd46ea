"""What stage=multimodal and stage=transfer of `vla pretrain` are told."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla.data.scene_tasks import TaskWeights
from vla.losses.suffix import Mean
from vla.models.backbones.variant import Variant
from vla.tokenizers.prompt_answer import PromptFamily


@dataclass(kw_only=True)
class MultimodalStageConfig:
    """Settings of the training on pictures and answers."""

    family: PromptFamily = PromptFamily.PALIGEMMA  # whose tiny shape is trained
    variant: Variant = field(default_factory=Variant)  # what an experiment changes about the family
    vision_from: list[str] = field(default_factory=list)  # checkpoints of its tower, or towers
    decoder_from: str = ""  # checkpoint of its decoder
    init_from: str = ""  # a model that answers already: its shape, weights and tokenizer
    mask_codec: str = (
        ""  # checkpoint of the codec; "" takes that of init_from, or leaves segmentation out
    )
    tasks_per_picture: int = 8
    is_packed: bool = True  # all questions behind one picture, in one row; half the time and less
    weights: TaskWeights = field(default_factory=TaskWeights)
    loss_mean: Mean = Mean.EXAMPLES  # PaliGemma's: every answer counts alike
    location_sigma: float = (
        4.0  # of the Gaussian targets of <loc>, in 1/1023 of a side; 0 is PaliGemma
    )
    location_weight: float = (
        1.0  # of a <loc> against other tokens; beside a mask they are 4 of some 28
    )
    smooth_locations: bool = (
        True  # <loc> tokens of a new decoder start alike where they are near; False: at random
    )
    pointing_weight: float = (
        0.0  # of pointing at the object halfway through the decoder; square families alone
    )
    z_weight: float = 0.0  # of the mean squared log-partition; 1e-4 is usual
    system_text: str = (
        ""  # said first by families that converse; the released ones have such a line
    )
    max_instruction_tokens: int = 64  # longer prompts are refused by `vla ask`
    measured_pictures: int = 32  # held-out ones that are asked about while training
    final_pictures: int = 256  # and at the end, for the summary
