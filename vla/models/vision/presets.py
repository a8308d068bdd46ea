"""Shapes of vision towers as data, each with its source."""

from __future__ import annotations

from dataclasses import replace

from vla.models.vision.vit_config import Positions, Resampling, ViTConfig
from vla.nn.mlp import Activation
from vla.nn.norms import Norm

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def dinov2_large_reg4(*, is_whole: bool = False) -> ViTConfig:
    """Returns timm's vit_large_patch14_reg4_dinov2 as OpenVLA reads it: after block 22 of 24, no final norm.

    Source: timm 0.9.10 vision_transformer.py; openvla prismatic/models/backbones/vision/dinosiglip_vit.py.

    Args:
        is_whole: also hold what OpenVLA's checkpoint carries without reading it.
    """
    return ViTConfig(
        pixel_mean=list(IMAGENET_MEAN), pixel_std=list(IMAGENET_STD), is_whole=is_whole
    )


def siglip_so400m(*, is_whole: bool = False) -> ViTConfig:
    """Returns timm's vit_so400m_patch14_siglip_224 as OpenVLA reads it: after block 25 of 27, no final norm.

    Source: timm 0.9.10 vision_transformer.py: mlp ratio 3.7362 of 1152, and exact GELU, which OpenVLA was
    trained with; SigLIP's own code, `siglip_so400m_released` and `tiny_siglip` use the tanh form.

    Args:
        is_whole: also hold what OpenVLA's checkpoint carries without reading it, the pooling head included.
    """
    return replace(
        siglip_so400m_released(has_attention_pool=is_whole),
        activation=Activation.GELU,
        output_block=-2,
        has_final_norm=False,
        resampling=Resampling.BICUBIC,
        is_whole=is_whole,
    )


def siglip_so400m_released(*, has_attention_pool: bool = True) -> ViTConfig:
    """Returns SigLIP So400m/14, for pictures of 224, 448 or 896 px.

    Source: configs of google/siglip-so400m-patch14-384 (378 px of which are read) and google/paligemma-3b-pt-*.

    Args:
        has_attention_pool: the head that makes one vector of a picture; PaliGemma leaves it out.
    """
    return ViTConfig(
        width=1152,
        depth=27,
        num_heads=16,
        mlp_width=4304,
        activation=Activation.GELU_TANH,
        has_class_token=False,
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        has_final_norm=True,
        resampling=Resampling.BICUBIC_PLAIN,
        has_attention_pool=has_attention_pool,
    )


def siglip2_base_naflex() -> ViTConfig:
    """Returns SigLIP2 B/16 NaFlex: any shape of picture, positions stretched from 16 x 16 (image_size 256).

    Source: config of google/siglip2-base-patch16-naflex.
    """
    return replace(
        siglip_so400m_released(),
        patch_size=16,
        width=768,
        depth=12,
        num_heads=12,
        mlp_width=3072,
        resampling=Resampling.BILINEAR,
    )


def siglip2_so400m_naflex() -> ViTConfig:
    """Returns SigLIP2 So400m/16 NaFlex; see `siglip2_base_naflex`. Source: google/siglip2-so400m-patch16-naflex."""
    return replace(siglip_so400m_released(), patch_size=16, resampling=Resampling.BILINEAR)


def clip_vit_l_14() -> ViTConfig:
    """Returns CLIP ViT-L/14 for pictures of 224 or 336 px. Source: config of openai/clip-vit-large-patch14."""
    return ViTConfig(
        activation=Activation.QUICK_GELU,
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        has_final_norm=True,
        has_patch_bias=False,
        resampling=Resampling.BICUBIC_PLAIN,
        has_class_position=True,
        has_pre_norm=True,
        norm_eps=1e-5,
        pixel_mean=list(CLIP_MEAN),
        pixel_std=list(CLIP_STD),
    )


def dinov2_large_reg4_released() -> ViTConfig:
    """Returns DINOv2 L/14 with registers as Meta released it: positions of 37 x 37 patches (image_size 518).

    Source: facebookresearch/dinov2 vision_transformer.py; config of facebook/dinov2-with-registers-large.
    """
    return ViTConfig(
        output_block=-1,
        has_final_norm=True,
        has_class_position=True,
        has_mask_token=True,
        pixel_mean=list(IMAGENET_MEAN),
        pixel_std=list(IMAGENET_STD),
    )


def qwen2_vl_tower() -> ViTConfig:
    """Returns the tower of every Qwen2-VL: 631 million parameters without its connector.

    Source: configs of Qwen/Qwen2-VL-2B-Instruct and 7B; transformers 5.5.4 modeling_qwen2_vl.py.
    """
    return ViTConfig(
        width=1280,
        depth=32,
        mlp_width=5120,
        activation=Activation.QUICK_GELU,
        has_class_token=False,
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        num_frames=2,
        has_patch_bias=False,
        positions=Positions.NONE,
        rope_theta=10000.0,
        pixel_mean=list(CLIP_MEAN),
        pixel_std=list(CLIP_STD),
    )


def gemma4_tower_small() -> ViTConfig:
    """Returns the tower of Gemma 4 E2B and E4B. Source: transformers convert_gemma4_weights.py, on-device config."""
    return ViTConfig(
        patch_size=16,
        width=768,
        depth=16,
        num_heads=12,
        mlp_width=3072,
        activation=Activation.GELU_TANH,
        has_class_token=False,
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        has_patch_bias=False,
        positions=Positions.AXES,
        is_column_first=True,
        rope_theta=100.0,
        rope_is_apart=True,
        norm=Norm.RMS,
        has_bias=False,
        is_gated=True,
        has_post_norms=True,
        has_qk_norm=True,
        has_v_norm=True,
        attention_scale=1.0,
        has_clipped_linears=True,
    )


def gemma4_tower_large() -> ViTConfig:
    """Returns the tower of Gemma 4 26B and 31B; its pooled tokens are standardised (`AveragePool`).

    Source: transformers convert_gemma4_weights.py, large config.
    """
    return replace(
        gemma4_tower_small(),
        width=1152,
        depth=27,
        num_heads=16,
        mlp_width=4304,
        has_clipped_linears=False,
    )


def tiny_dinov2(width: int = 96, depth: int = 2, patch_size: int = 16) -> ViTConfig:
    """Returns a DINOv2-style tower for pictures of 64 to 96 px: convolutional stem, class token, 4 registers."""
    return ViTConfig(
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=width // 32,
        mlp_width=width * 4,
        layer_scale=0.1,
        output_block=-1,
        has_final_norm=True,
        stem_channels=[16, 32, 64],
        pixel_mean=list(IMAGENET_MEAN),
        pixel_std=list(IMAGENET_STD),
    )


def tiny_siglip(width: int = 96, depth: int = 2, patch_size: int = 16) -> ViTConfig:
    """Returns a SigLIP-style tower of the same grid: no class token, no LayerScale, tanh GELU."""
    return ViTConfig(
        patch_size=patch_size,
        width=width,
        depth=depth,
        num_heads=width // 32,
        mlp_width=width * 4,
        activation=Activation.GELU_TANH,
        has_class_token=False,
        num_registers=0,
        layer_scale=None,
        output_block=-1,
        has_final_norm=True,
        stem_channels=[16, 32, 64],
    )
