"""A backbone as it learns to answer: logits where answers stand, and nowhere else.

Several questions about one picture may stand in one row, as documents behind a shared head (`sequence.pack`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vla.models.backbones.families import AnyBackbone
from vla.models.backbones.paligemma import PaliGemma
from vla.models.sequence import Prefix, pack, read
from vla.nn.block import Block
from vla.nn.masks import PrefixAttention
from vla.nn.rope import apply_rope, rope_rotation


@dataclass(kw_only=True)
class AnswerLogits:
    """Predictions of the tokens of all answers, one after the other.

    Attributes:
        logits: over the vocabulary.
        ids: the true tokens, the end token of each answer included.
        answers: number of the answer each belongs to, 0, 1, 2, ...
        pointing: of every token, scores over the image tokens of its row; None if not asked for.
    """

    logits: Float[Tensor, "tokens vocabulary"]
    ids: Int[Tensor, " tokens"]
    answers: Int[Tensor, " tokens"]
    pointing: Float[Tensor, "tokens image_tokens"] | None = None


class Answering(nn.Module):
    """A backbone whose forward pass is what the loss on answers is taken on.

    With `points` it also says where it looks while it answers: what the first head of the block after the decoder's
    middle makes of the image tokens, before the softmax. Every row must have one picture of as many image tokens.
    """

    def __init__(self, backbone: AnyBackbone, *, points: bool = False) -> None:
        super().__init__()
        self.backbone, self.points = backbone, points

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        valid: Bool[Tensor, "batch tokens"],
        suffix_mask: Bool[Tensor, "batch tokens"],
        pictures: Sequence[Sequence[Tensor]],
        documents: Int[Tensor, "batch tokens"] | None = None,
    ) -> AnswerLogits:
        """Returns the logits of the answers' tokens.

        Args:
            ids: heads, questions and answers, from `AnswerPrompts`.
            valid: False for padding, on the right.
            suffix_mask: True for the answers.
            pictures: of every row, uint8.
            documents: -1 over the head, then the number of each token's question; None where each row has one.
        """
        prefix = self.backbone.embed_pictures(ids, valid, pictures, suffix_mask)
        placed = None
        if documents is not None:
            placed = _in_sequence(documents, prefix)
            prefix = pack(prefix, placed)
        decoder = self.backbone.decoder
        looks: list[Tensor] = []
        looking = cast(Block, decoder.layers[len(decoder.layers) // 2]).attention

        def keep(_: nn.Module, __: Any, qkv: Tensor) -> None:
            looks.append(qkv)

        hook = looking.qkv.register_forward_hook(keep)
        hidden = read(decoder, prefix)
        hook.remove()
        rows, columns = prefix.suffix_mask.nonzero(as_tuple=True)
        answers = _numbered(rows, None if placed is None else placed[rows, columns])
        return AnswerLogits(
            logits=decoder.logits(hidden[rows, columns - 1][None])[0],
            ids=prefix.token_ids[rows, columns],
            answers=answers,
            pointing=self._scores(looks[0], prefix)[rows, columns - 1] if self.points else None,
        )

    def _scores(self, qkv: Tensor, prefix: Prefix) -> Tensor:
        """Returns the first head's scores of the image tokens (batch, tokens, image tokens)."""
        config = self.backbone.decoder.config
        shape = config.block(config.depth // 2).attention()
        rotation = rope_rotation(prefix.positions, shape.head_dim, config.rope(config.depth // 2))
        heads = qkv.unflatten(-1, (-1, shape.head_dim))[:, :, [0, shape.num_heads]]
        q, k = apply_rope(heads, rotation).unbind(dim=2)
        of_pictures = k[prefix.is_image].unflatten(0, (len(k), -1))
        return q @ of_pictures.transpose(1, 2) * (shape.scale or shape.head_dim**-0.5)


def can_share_pictures(backbone: AnyBackbone) -> bool:
    """Whether several questions can be packed behind one picture: its tokens must not look at what is asked."""
    is_apart = isinstance(backbone, PaliGemma) and backbone.config.pictures_apart
    return is_apart or backbone.attention is PrefixAttention.CAUSAL


def _in_sequence(documents: Tensor, prefix: Prefix) -> Tensor:
    """The same in the coordinates of the sequence: families that insert pictures by themselves put them in the head."""
    if documents.shape == prefix.valid.shape:
        return documents
    placed = torch.full_like(prefix.is_image, -1, dtype=documents.dtype)
    placed[~prefix.is_image] = documents.flatten()
    return placed


def _numbered(rows: Tensor, documents: Tensor | None) -> Tensor:
    """0, 1, 2, ... over runs of tokens of one row and document."""
    is_new = torch.zeros_like(rows, dtype=torch.bool)
    is_new[1:] = rows[1:] != rows[:-1]
    if documents is not None:
        is_new[1:] |= documents[1:] != documents[:-1]
    return is_new.cumsum(dim=0)
