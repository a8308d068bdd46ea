"""Several named terms, one number to descend; words and actions learnt together.

A batch may hold rows that answer in words and rows that answer in actions (or both, a plan and then the actions).
Keeping the words is what keeps a model's knowledge of the world while it learns to act (RT-2, Brohan et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla.errors import ConfigError, unknown_name
from vla.losses.suffix import Mean, mean_over, token_nats, z_loss


def joint_loss(
    terms: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float]
) -> Float[Tensor, ""]:
    """Returns the sum of weight times term.

    Every term needs a weight, so that none is dropped by a misspelt name; weights of terms that are absent from
    this batch are allowed.
    """
    missing = [name for name in terms if name not in weights]
    if missing:
        raise ConfigError(unknown_name("loss term", missing[0], weights))
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def token_terms(
    token_logits: Float[Tensor, "batch tokens vocabulary"],
    token_ids: Int[Tensor, "batch tokens"],
    label_masks: Mapping[str, Bool[Tensor, "batch tokens"]],
    *,
    mean: Mean = Mean.TOKENS,
    has_z: bool = False,
) -> dict[str, Float[Tensor, ""]]:
    """Returns one cross-entropy for each kind of label, in nats, each a mean over its own labels (0 without any).

    With means of their own, weights say how much words count against actions, however many there are of either.

    Args:
        token_logits: `token_logits[:, i]` predicts `token_ids[:, i]`.
        token_ids: the true tokens.
        label_masks: by name of the term, such as "action" and "text".
        mean: what counts alike within a term.
        has_z: also the term "z", over labels of any kind.

    Raises:
        ConfigError: no kind of label is given, or one is called "z".
    """
    if not label_masks or "z" in label_masks:
        raise ConfigError(
            f"label masks {sorted(label_masks)}: name at least one kind of label, and none 'z'"
        )
    is_label = torch.stack(list(label_masks.values())).any(dim=0)
    nats = token_nats(token_logits, token_ids, is_label)
    terms = {name: mean_over(nats, mask, mean) for name, mask in label_masks.items()}
    if has_z:
        terms["z"] = z_loss(token_logits, is_label, mean=mean)
    return terms
