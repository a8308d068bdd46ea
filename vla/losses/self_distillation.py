"""Losses by which a tower learns from its own moving average: DINO, iBOT and KoLeo, as DINOv2 joins them.

A head turns a token into logits over prototypes. The teacher's are made into probabilities, sharpened by a low
temperature and kept from piling up on few prototypes by centring or by Sinkhorn-Knopp; the student is to predict them
from another crop of the picture (DINO, class tokens) or from where the patch was hidden (iBOT, patch tokens). KoLeo
spreads the class tokens of a batch over the sphere.

Sources: Caron et al. 2021, Zhou et al. 2022, Sablayrolles et al. 2019, Oquab et al. 2023; facebookresearch/dinov2,
dinov2/loss (dino_clstoken_loss.py, ibot_patch_loss.py, koleo_loss.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vla.errors import ConfigError

_EPSILON = 1e-8  # as in koleo_loss.py


def centred(
    logits: Float[Tensor, "*tokens prototypes"],
    centre: Float[Tensor, " prototypes"],
    temperature: float,
) -> Float[Tensor, "*tokens prototypes"]:
    """Returns the teacher's probabilities with its usual logits taken off, which no prototype then leads by habit."""
    return ((logits.float() - centre) / temperature).softmax(dim=-1)


def moved_centre(
    centre: Float[Tensor, " prototypes"],
    logits: Float[Tensor, "tokens prototypes"],
    momentum: float = 0.9,
) -> Float[Tensor, " prototypes"]:
    """Returns the moving mean of the teacher's logits after one more batch."""
    return centre * momentum + logits.float().mean(dim=0) * (1 - momentum)


def sinkhorn_knopp(
    logits: Float[Tensor, "tokens prototypes"], temperature: float, num_iterations: int = 3
) -> Float[Tensor, "tokens prototypes"]:
    """Returns the teacher's probabilities, nearly as much on every prototype over the whole batch.

    Rows and columns of exp(logits / temperature) are scaled in turn; rows, one a token, come last and sum to one.
    """
    scaled = logits.float() / temperature
    shares = (scaled - scaled.max()).exp()
    shares = shares / shares.sum()
    for _ in range(num_iterations):
        shares = shares / shares.sum(dim=0, keepdim=True).clamp(min=1e-30) / shares.shape[1]
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-30) / shares.shape[0]
    return shares * shares.shape[0]


def dino_loss(
    student: Float[Tensor, "crops batch prototypes"],
    teacher: Float[Tensor, "global_crops batch prototypes"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy, in nats, over all pairs of a teacher's and a student's crop that differ.

    Args:
        student: logits of every crop; the first ones are the teacher's crops, in its order.
        teacher: probabilities of the global crops.
        temperature: the student's.

    Raises:
        ConfigError: one crop alone, which has nothing to be compared with.
    """
    num_crops, num_global = len(student), len(teacher)
    if num_crops < 2:
        raise ConfigError(
            f"self-distillation compares crops of a picture; got {num_crops}, expected 2 or more"
        )
    log_probabilities = (student.float() / temperature).log_softmax(dim=-1)
    pairs = -torch.einsum("tbk,sbk->ts", teacher, log_probabilities) / student.shape[1]
    same = torch.eye(num_global, num_crops, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum() / (num_global * num_crops - num_global)


def ibot_loss(
    student: Float[Tensor, "masked prototypes"],
    teacher: Float[Tensor, "masked prototypes"],
    weights: Float[Tensor, " masked"],
    num_pictures: int,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Returns the cross-entropy of hidden patches, in nats: the mean over a picture's patches, then over pictures.

    Args:
        student: logits of the hidden patches of all pictures.
        teacher: probabilities of the same patches, seen.
        weights: of each patch, one over the number of patches hidden in its picture.
        num_pictures: pictures, those with nothing hidden included.
        temperature: the student's.
    """
    log_probabilities = (student.float() / temperature).log_softmax(dim=-1)
    nats = -(teacher * log_probabilities).sum(dim=-1)
    return (nats * weights).sum() / num_pictures


def koleo_loss(features: Float[Tensor, "batch width"]) -> Float[Tensor, ""]:
    """Returns minus the mean logarithm of the distance to the nearest other feature, all scaled to unit length.

    Raises:
        ConfigError: fewer than two features.
    """
    if len(features) < 2:
        raise ConfigError(f"KoLeo needs at least two pictures a batch; got {len(features)}")
    unit = F.normalize(features.float(), dim=-1, eps=_EPSILON)
    with torch.no_grad():
        cosine = unit @ unit.T
        nearest = cosine.fill_diagonal_(-1.0).argmax(dim=1)
    distance = F.pairwise_distance(unit, unit[nearest], eps=_EPSILON)
    return -(distance + _EPSILON).log().mean()


def feature_spread(features: Float[Tensor, "batch width"]) -> Float[Tensor, ""]:
    """Returns how widely directions differ: 0 when all are the same (collapsed), about 1 when spread over the sphere.

    It is the root mean square distance of unit-length features from their mean.
    """
    unit = F.normalize(features.float(), dim=-1)
    return (unit - unit.mean(dim=0)).square().sum(dim=-1).mean().sqrt()


def assignment_entropy(probabilities: Float[Tensor, "tokens prototypes"]) -> Float[Tensor, ""]:
    """Returns the entropy of the mean assignment as a share of the largest possible: 0 when one prototype takes all."""
    mean = probabilities.float().mean(dim=0)
    nats = -(mean * mean.clamp(min=1e-30).log()).sum()
    return nats / torch.tensor(float(len(mean))).log().to(nats.device)
