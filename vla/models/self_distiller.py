"""A tower and its own moving average, each with two heads over prototypes: what DINOv2 trains (Oquab et al. 2023)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.initialisation import initialise
from vla.models.vision.vit import ViT
from vla.models.vision.vit_config import ViTConfig


@dataclass(kw_only=True)
class PrototypeHeadConfig:
    """Shape of a head. The defaults are DINOv2's."""

    num_prototypes: int = 65536
    hidden_width: int = 2048
    bottleneck_width: int = 256


class PrototypeHead(nn.Module):
    """Three layers to a bottleneck of unit length, then its cosine with every prototype (Caron et al. 2021)."""

    def __init__(self, width: int, config: PrototypeHeadConfig) -> None:
        super().__init__()
        hidden = config.hidden_width
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, config.bottleneck_width),
        )
        self.prototypes = nn.Parameter(torch.randn(config.num_prototypes, config.bottleneck_width))

    def forward(
        self, tokens: Float[Tensor, "*tokens width"], *, rests: bool = False
    ) -> Float[Tensor, "*tokens prototypes"]:
        """Returns the logits of tokens.

        Args:
            tokens: features of a tower.
            rests: the prototypes get gradients of zero, as at the start of training.
        """
        prototypes = self.prototypes
        if rests:
            prototypes = prototypes.detach() + 0.0 * prototypes
        bottleneck = F.normalize(self.layers(tokens).float(), dim=-1)
        return F.linear(bottleneck, F.normalize(prototypes, dim=-1))


class Pupil(nn.Module):
    """A tower with a head for its class token and one for its patches."""

    def __init__(self, config: ViTConfig, image_size: int, head: PrototypeHeadConfig) -> None:
        super().__init__()
        self.tower = ViT(config, image_size)
        self.class_head = PrototypeHead(config.width, head)
        self.patch_head = PrototypeHead(config.width, head)


class SelfDistiller(nn.Module):
    """Student and teacher. The teacher starts as the student, is never trained, and follows it as a moving mean.

    Centres of the teacher's logits and the teacher itself are parameters without gradients, so that a checkpoint of
    the parameters is all that resuming needs.
    """

    def __init__(self, config: ViTConfig, image_size: int, head: PrototypeHeadConfig) -> None:
        super().__init__()
        if not (config.has_class_token and config.has_mask_token):
            raise ConfigError(
                "self-distillation needs a tower with a class token and a mask token; "
                "set has_class_token=true and has_mask_token=true"
            )
        self.student = Pupil(config, image_size, head)
        initialise(self.student)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        centres = torch.zeros(2, head.num_prototypes)
        self.class_centre = nn.Parameter(centres[0].clone(), requires_grad=False)
        self.patch_centre = nn.Parameter(centres[1].clone(), requires_grad=False)

    def forward(
        self,
        global_crops: Float[Tensor, "global 3 rows columns"],
        local_crops: Float[Tensor, "local 3 small_rows small_columns"],
        is_masked: Bool[Tensor, "global patches"],
        *,
        rests: bool = False,
    ) -> DistilledLogits:
        """Returns what the student says of all crops, and what the teacher says of the global ones.

        Args:
            global_crops: normalised; crop after crop, each with the whole batch.
            local_crops: likewise; there may be none.
            is_masked: patches of the global crops that are hidden from the student.
            rests: see `PrototypeHead`.
        """
        student = self.student
        summary, patches = student.tower.read(global_crops, is_masked=is_masked)
        classes = [student.class_head(summary, rests=rests)]
        if len(local_crops):
            local, _ = student.tower.read(local_crops)
            classes.append(student.class_head(local, rests=rests))
        with torch.no_grad():
            seen_summary, seen_patches = self.teacher.tower.read(global_crops)
            teacher_classes = self.teacher.class_head(seen_summary)
            teacher_patches = self.teacher.patch_head(seen_patches[is_masked])
        return DistilledLogits(
            summary=summary,
            classes=torch.cat(classes),
            patches=student.patch_head(patches[is_masked], rests=rests),
            teacher_classes=teacher_classes,
            teacher_patches=teacher_patches,
        )

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Moves the teacher towards the student: teacher = momentum * teacher + (1 - momentum) * student."""
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for kept, live in pairs:
            kept.lerp_(live, 1 - momentum)


@dataclass(kw_only=True)
class DistilledLogits:
    """What `SelfDistiller` gives.

    Attributes:
        summary: (global crops * batch, width) class tokens of the student.
        classes: (crops * batch, prototypes) of the student, global crops first.
        patches: (hidden patches, prototypes) of the student.
        teacher_classes: (global crops * batch, prototypes).
        teacher_patches: (hidden patches, prototypes).
    """

    summary: Tensor
    classes: Tensor
    patches: Tensor
    teacher_classes: Tensor
    teacher_patches: Tensor
