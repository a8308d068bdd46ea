"""Which part of each family is trained at which stage, as the course text tells it, and how the released models differ.

Four stages: each part apart, then together on pictures and text, then on one task, then on robot actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vla.models.backbones.families import Family

STAGE_NAMES = ("1 unimodal", "2 multimodal", "3 transfer", "4 robot actions")


class Training(Enum):
    """What a stage does with a part."""

    APART = "apart"  # trained by itself
    FROZEN = "frozen"
    TRAINED = "trained"
    ABSENT = "-"  # not there yet


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What each of the four stages does with the three parts of a family.

    Attributes:
        vision, connector, decoder: in the order of STAGE_NAMES.
        released: where the released models' recipe differs, with its source.
    """

    vision: tuple[Training, Training, Training, Training]
    connector: tuple[Training, Training, Training, Training]
    decoder: tuple[Training, Training, Training, Training]
    released: str


_CONNECTOR = (Training.ABSENT, Training.TRAINED, Training.TRAINED, Training.TRAINED)
_ENCODER = (Training.APART, Training.FROZEN, Training.TRAINED, Training.TRAINED)
_DECODER = (Training.APART, Training.TRAINED, Training.TRAINED, Training.TRAINED)
_WOVEN = (Training.ABSENT, Training.TRAINED, Training.TRAINED, Training.TRAINED)

STAGES = {
    Family.PRISMATIC: Stages(
        vision=_ENCODER,
        connector=_CONNECTOR,
        decoder=_DECODER,
        released=(
            "OpenVLA goes from stage 2 straight to stage 4, and trains the towers too in that one (openvla/openvla "
            "c8f03f4: prismatic/models/vlms/prismatic.py, freeze_backbones; prismatic/conf/vla.py)"
        ),
    ),
    Family.PALIGEMMA: Stages(
        vision=_ENCODER,
        connector=_CONNECTOR,
        decoder=_DECODER,
        released=(
            "stage 2 froze nothing, the encoder's learning rate was warmed up slowly, and the connector began at zero; "
            "stages of higher resolution came before transfer (Beyer et al. 2024, section 3)"
        ),
    ),
    Family.QWEN2_VL: Stages(
        vision=(Training.APART, Training.TRAINED, Training.TRAINED, Training.TRAINED),
        connector=_CONNECTOR,
        decoder=_DECODER,
        released=(
            "the encoder was first trained against the decoder, then everything, then, for instructions, the decoder "
            "alone with the encoder frozen (Wang et al. 2024, section 2.2)"
        ),
    ),
    Family.GEMMA4: Stages(
        vision=_WOVEN,
        connector=_WOVEN,
        decoder=_WOVEN,
        released=(
            "the text has pictures and words trained together from the start, without an encoder or a connector; "
            "of the released models only the 12B has no encoder, and it has a small projection; how they were "
            "trained is not published"
        ),
    ),
}
