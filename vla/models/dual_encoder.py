"""Pictures and texts in one space: SigLIP (Zhai et al. 2023), SigLIP2 (Tschannen et al. 2025) and CLIP.

A tower each, one vector each, of unit length; the logit of a pair is their cosine times a temperature, plus a bias
(SigLIP). Losses are in `vla.losses.contrastive`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.models.vision import presets
from vla.models.vision.vit import ViT
from vla.models.vision.vit_config import ViTConfig
from vla.nn.block import Block, BlockConfig
from vla.nn.masks import attention_mask, causal_blocks
from vla.nn.mlp import Activation


@dataclass(kw_only=True)
class TextTowerConfig:
    """Shape of a text tower. The defaults are SigLIP So400m's."""

    vocab_size: int = 32000
    max_tokens: int = 64
    width: int = 1152
    depth: int = 27
    num_heads: int = 16
    mlp_width: int = 4304
    activation: Activation = Activation.GELU_TANH
    norm_eps: float = 1e-6
    is_causal: bool = False  # CLIP; SigLIP lets every token see all, padding too
    end_id: int | None = (
        None  # the text's vector is that of the first such token; None: of the last
    )

    def block(self) -> BlockConfig:
        """Returns the shape of every block."""
        return BlockConfig(
            width=self.width,
            num_heads=self.num_heads,
            mlp_width=self.mlp_width,
            activation=self.activation,
            norm_eps=self.norm_eps,
            qkv_bias=True,
            out_bias=True,
            mlp_bias=True,
        )


@dataclass(kw_only=True)
class DualEncoderConfig:
    """Two towers and what joins them. The defaults are SigLIP So400m/14's at 224 px."""

    vision: ViTConfig = field(default_factory=presets.siglip_so400m_released)
    image_size: int = 224  # pixels; sets the grid of the position table
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    embedding_width: int = 1152
    has_image_projection: bool = False  # CLIP; SigLIP's pooled vector is the embedding
    text_projection_bias: bool = True
    log_temperature: float = math.log(10.0)  # to start with
    logit_bias: float | None = -10.0  # to start with; None: CLIP has none

    def __post_init__(self) -> None:
        if not self.has_image_projection and self.vision.width != self.embedding_width:
            raise ConfigError(
                f"pictures have {self.vision.width} channels and embeddings {self.embedding_width}; "
                "make them equal or set has_image_projection=true"
            )


class Pairs(NamedTuple):
    """What `DualEncoder` gives: unit-length embeddings, and the logit of every picture with every text."""

    image_embeddings: Float[Tensor, "images width"]
    text_embeddings: Float[Tensor, "texts width"]
    logits: Float[Tensor, "images texts"]


class TextTower(nn.Module):
    """A transformer over the tokens of a text."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_table = nn.Parameter(torch.zeros(config.max_tokens, config.width))
        self.blocks = nn.ModuleList(Block(config.block()) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Returns the features of every token.

        Raises:
            ConfigError: longer than the position table.
        """
        num_tokens, config = ids.shape[1], self.config
        if num_tokens > config.max_tokens:
            raise ConfigError(
                f"a text of {num_tokens} tokens; this tower reads {config.max_tokens}; cut it shorter"
            )
        x = self.token_embedding(ids) + self.position_table[:num_tokens]
        may_attend: Bool[Tensor, "batch 1 tokens tokens"] | None = None
        if config.is_causal:
            everything = torch.ones_like(ids, dtype=torch.bool)
            may_attend = attention_mask(everything, causal_blocks(everything))
        for block in self.blocks:
            x = block(x, may_attend=may_attend)
        return self.final_norm(x)

    def pooled(
        self, hidden: Float[Tensor, "batch tokens width"], ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        """Returns the token that stands for the text: its end (CLIP), or the last of the row (SigLIP)."""
        if self.config.end_id is None:
            return hidden[:, -1]
        end = (ids == self.config.end_id).int().argmax(dim=1)
        return hidden[torch.arange(len(ids), device=ids.device), end]


class DualEncoder(nn.Module):
    """Embeds pictures and texts, and scores every picture with every text."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = ViT(config.vision, config.image_size)
        self.text = TextTower(config.text)
        width = config.embedding_width
        self.image_projection = None
        if config.has_image_projection:
            self.image_projection = nn.Linear(config.vision.width, width, bias=False)
        self.text_projection = nn.Linear(config.text.width, width, bias=config.text_projection_bias)
        self.log_temperature = nn.Parameter(torch.tensor(config.log_temperature))
        self.logit_bias = None
        if config.logit_bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(config.logit_bias))

    def forward(
        self, pixels: Float[Tensor, "images 3 rows columns"], ids: Int[Tensor, "texts tokens"]
    ) -> Pairs:
        """Returns the embeddings of normalised pictures of one size and of texts, and all their logits."""
        images, texts = self.embed_images(pixels), self.embed_texts(ids)
        return Pairs(images, texts, self.logits(images, texts))

    def embed_images(
        self, pixels: Float[Tensor, "images 3 rows columns"]
    ) -> Float[Tensor, "images width"]:
        """Returns unit-length embeddings of normalised pictures of one size."""
        return self._image_embeddings(self.vision.summarise(pixels))

    def embed_patches(
        self,
        patches: Float[Tensor, "images patches values"],
        positions: Int[Tensor, "images patches 2"],
        valid: Bool[Tensor, "images patches"] | None = None,
    ) -> Float[Tensor, "images width"]:
        """Returns unit-length embeddings of pictures of many shapes, cut into patches; see `ViT.encode`."""
        return self._image_embeddings(self.vision.summarise_patches(patches, positions, valid))

    def embed_texts(self, ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts width"]:
        """Returns unit-length embeddings; SigLIP wants every text padded to `max_tokens`, as it was trained."""
        pooled = self.text.pooled(self.text(ids), ids)
        return F.normalize(self.text_projection(pooled), dim=-1)

    def logits(
        self, images: Float[Tensor, "images width"], texts: Float[Tensor, "texts width"]
    ) -> Float[Tensor, "images texts"]:
        """Returns the score of every picture with every text."""
        logits = images @ texts.T * self.log_temperature.exp()
        return logits if self.logit_bias is None else logits + self.logit_bias

    def _image_embeddings(self, summary: Tensor) -> Tensor:
        if self.image_projection is not None:
            summary = self.image_projection(summary)
        return F.normalize(summary, dim=-1)


def siglip_so400m(image_size: int = 378) -> DualEncoderConfig:
    """Returns SigLIP So400m/14, also at 224 px. Source: google/siglip-so400m-patch14-384; reads 378 of 384 px."""
    return DualEncoderConfig(image_size=image_size)


def siglip2_base_naflex() -> DualEncoderConfig:
    """Returns SigLIP2 B/16 for pictures of any shape. Source: google/siglip2-base-patch16-naflex."""
    text = TextTowerConfig(vocab_size=256000, width=768, depth=12, num_heads=12, mlp_width=3072)
    return DualEncoderConfig(
        vision=presets.siglip2_base_naflex(), image_size=256, text=text, embedding_width=768
    )


def tiny_siglip(
    vocab_size: int,
    *,
    image_size: int = 64,
    width: int = 128,
    depth: int = 4,
    patch_size: int = 8,
    text_width: int = 128,
    text_depth: int = 3,
    max_text_tokens: int = 64,
) -> DualEncoderConfig:
    """Returns a pair to be trained on a CPU; its vision tower is `presets.tiny_siglip`'s with an attention pool."""
    tower = presets.tiny_siglip(width, depth, patch_size)
    return DualEncoderConfig(
        vision=replace(tower, has_attention_pool=True),
        image_size=image_size,
        text=TextTowerConfig(
            vocab_size=vocab_size,
            max_tokens=max_text_tokens,
            width=text_width,
            depth=text_depth,
            num_heads=text_width // 32,
            mlp_width=4 * text_width,
        ),
        embedding_width=width,
    )


def clip_vit_l_14(image_size: int = 224) -> DualEncoderConfig:
    """Returns CLIP ViT-L/14 (Radford et al. 2021), at 224 or 336 px. Source: openai/clip-vit-large-patch14, -336."""
    return DualEncoderConfig(
        vision=presets.clip_vit_l_14(),
        image_size=image_size,
        text=TextTowerConfig(
            vocab_size=49408,
            max_tokens=77,
            width=768,
            depth=12,
            num_heads=12,
            mlp_width=3072,
            activation=Activation.QUICK_GELU,
            norm_eps=1e-5,
            is_causal=True,
            end_id=49407,
        ),
        embedding_width=768,
        has_image_projection=True,
        text_projection_bias=False,
        log_temperature=math.log(1.0 / 0.07),  # section 2.5
        logit_bias=None,
    )
