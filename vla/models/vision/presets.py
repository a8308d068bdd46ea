"""Shapes of vision towers as data, each with its source."""

from __future__ import annotations

from vla.models.vision.vit import ViTConfig
from vla.nn.mlp import Activation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def dinov2_large_reg4() -> ViTConfig:
    """Returns timm's vit_large_patch14_reg4_dinov2 as OpenVLA reads it: after block 22 of 24, no final norm.

    Source: timm 0.9.10 vision_transformer.py; openvla prismatic/models/backbones/vision/dinosiglip_vit.py.
    """
    return ViTConfig(pixel_mean=list(IMAGENET_MEAN), pixel_std=list(IMAGENET_STD))


def siglip_so400m() -> ViTConfig:
    """Returns timm's vit_so400m_patch14_siglip_224 as OpenVLA reads it: after block 25 of 27, no final norm.

    Source: timm 0.9.10 vision_transformer.py: mlp ratio 3.7362 of 1152, and exact GELU, which OpenVLA was
    trained with; SigLIP's own code and `tiny_siglip` use the tanh form.
    """
    return ViTConfig(
        width=1152,
        depth=27,
        num_heads=16,
        mlp_width=4304,
        has_class_token=False,
        num_registers=0,
        layer_scale=None,
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
