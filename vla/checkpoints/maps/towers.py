"""Where the weights of vision towers go in our ViT, in the layouts that several families share.

Every function returns a table whose names on both sides begin at the tower; `prefixed` puts it where it belongs.
Sources: transformers 5.5.4, models/{siglip,siglip2,clip,dinov2_with_registers,qwen2_vl,gemma4}/modeling_*.py;
timm 0.9.10 vision_transformer.py and layers/attention_pool.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from vla.checkpoints.keymap import (
    Rule,
    Table,
    affine,
    kernel,
    prefixed,
    repeated,
    reshaped,
    scalars,
    stacked,
    stacked_affine,
    without_leading,
)
from vla.models.vision.vit_config import ViTConfig

# timm and Qwen2-VL name the parts of a block alike, DINOv2's in transformers nearly so.
_NORMS: Table = {**affine("attention_norm", "norm1"), **affine("mlp_norm", "norm2")}
_MLP: Table = {**affine("mlp.up", "mlp.fc1"), **affine("mlp.down", "mlp.fc2")}
_FUSED_BLOCK: Table = {
    **_NORMS,
    **affine("attention.qkv", "attn.qkv"),
    **affine("attention.out", "attn.proj"),
    **_MLP,
}
_GEMMA4_NORMS: Table = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention_post_norm.weight": "post_attention_layernorm.weight",
    "mlp_norm.weight": "pre_feedforward_layernorm.weight",
    "mlp_post_norm.weight": "post_feedforward_layernorm.weight",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
}


def encoder_blocks(width: int, depth: int) -> Table:
    """Returns the entries of all blocks of an encoder of SigLIP, SigLIP2 or CLIP, of pictures or of texts."""
    block: Table = {
        **affine("attention_norm", "layer_norm1"),
        **stacked_affine("attention.qkv", {f"self_attn.{name}_proj": width for name in "qkv"}),
        **affine("attention.out", "self_attn.out_proj"),
        **affine("mlp_norm", "layer_norm2"),
        **_MLP,
    }
    return repeated("blocks.{i}.", "encoder.layers.{i}.", block, depth)


def encoder_tower(config: ViTConfig, *, has_linear_patches: bool = False) -> Table:
    """Returns the entries of a tower of SigLIP, PaliGemma, SigLIP2 or CLIP, in transformers' layout.

    Args:
        config: of the tower.
        has_linear_patches: the patch embedding is stored as a matrix (SigLIP2), not as a convolution.
    """
    table: Table = {"position_table": "embeddings.position_embedding.weight"}
    table |= affine("patches.projection", "embeddings.patch_embedding", bias=config.has_patch_bias)
    if not has_linear_patches:
        table |= _patches(config, "embeddings.patch_embedding")
    if config.has_class_token:
        table["extra_tokens"] = reshaped(
            "embeddings.class_embedding", ours=(1, config.width), theirs=(config.width,)
        )
    if config.has_pre_norm:
        table |= affine("pre_norm", "pre_layrnorm")  # spelt so
    table |= encoder_blocks(config.width, config.num_blocks)
    if config.has_final_norm or config.is_whole:
        table |= affine("final_norm", "post_layernorm")
    if config.has_attention_pool:
        pool: Table = {
            "probe": _leading_ones("probe", config.width),
            "attention.qkv.weight": "attention.in_proj_weight",
            "attention.qkv.bias": "attention.in_proj_bias",
            **affine("attention.out", "attention.out_proj"),
            **affine("mlp_norm", "layernorm"),
            **_MLP,
        }
        table |= prefixed("attention_pool.", "head.", pool)
    return table


def timm_tower(config: ViTConfig, *, scale: str = "gamma") -> Table:
    """Returns the entries of a tower in timm's layout: DINOv2 with registers, SigLIP.

    Args:
        config: of the tower; timm keeps no position of the class token and no mask token.
        scale: name of LayerScale's weight; OpenVLA's checkpoints have "scale_factor".
    """
    table: Table = {
        **_patches(config, "patch_embed.proj"),
        "position_table": without_leading("pos_embed"),
    }
    table |= _extra_tokens(config, "cls_token", "reg_token")
    block = dict(_FUSED_BLOCK)
    if config.layer_scale is not None:
        block |= {"attention_scale": f"ls1.{scale}", "mlp_scale": f"ls2.{scale}"}
    table |= repeated("blocks.{i}.", "blocks.{i}.", block, config.num_blocks)
    if config.has_final_norm or config.is_whole:
        table |= affine("final_norm", "norm")
    if config.has_attention_pool:
        rows = {"q": config.width, "kv": 2 * config.width}
        pool: Table = {
            "probe": _leading_ones("latent", config.width),
            **stacked_affine("attention.qkv", rows),
            **affine("attention.out", "proj"),
            **affine("mlp_norm", "norm"),
            **_MLP,
        }
        table |= prefixed("attention_pool.", "attn_pool.", pool)
    return table


def dinov2_tower(config: ViTConfig) -> Table:
    """Returns the entries of a DINOv2, with registers or without, in transformers' layout."""
    rows = {f"attention.attention.{name}": config.width for name in ("query", "key", "value")}
    block: Table = {
        **_NORMS,
        **stacked_affine("attention.qkv", rows),
        **affine("attention.out", "attention.output.dense"),
        "attention_scale": "layer_scale1.lambda1",
        **_MLP,
        "mlp_scale": "layer_scale2.lambda1",
    }
    return {
        **_patches(config, "embeddings.patch_embeddings.projection"),
        "position_table": without_leading("embeddings.position_embeddings"),
        **_extra_tokens(config, "embeddings.cls_token", "embeddings.register_tokens"),
        "mask_token": without_leading("embeddings.mask_token"),
        **repeated("blocks.{i}.", "encoder.layer.{i}.", block, config.num_blocks),
        **affine("final_norm", "layernorm"),
    }


def qwen2_vl_tower(config: ViTConfig) -> Table:
    """Returns the entries of Qwen2-VL's tower without its merger."""
    return {
        **_patches(config, "patch_embed.proj"),
        **repeated("blocks.{i}.", "blocks.{i}.", _FUSED_BLOCK, config.num_blocks),
    }


def gemma4_tower(config: ViTConfig) -> Table:
    """Returns the entries of Gemma 4's tower without its pooling (shift and gain: `std_bias`, `std_scale`)."""
    linears = {
        "attention.qkv": {f"self_attn.{name}_proj": config.width for name in "qkv"},
        "attention.out": {"self_attn.o_proj": config.width},
        "mlp.gate_up": {f"mlp.{name}_proj": config.mlp_width for name in ("gate", "up")},
        "mlp.down": {"mlp.down_proj": config.width},
    }
    block = dict(_GEMMA4_NORMS)
    for ours, rows in linears.items():
        block[f"{ours}.weight"] = stacked(
            {f"{name}.linear.weight": count for name, count in rows.items()}
        )
        if config.has_clipped_linears:
            block |= _bounds(ours, list(rows))
    return {
        "patches.projection.weight": "patch_embedder.input_proj.weight",
        "axis_tables": "patch_embedder.position_embedding_table",
        **repeated("blocks.{i}.", "encoder.layers.{i}.", block, config.num_blocks),
    }


def _bounds(ours: str, theirs: Sequence[str]) -> Table:
    names = ("input_min", "input_max", "output_min", "output_max")
    return {f"{ours}.{bound}": scalars([f"{name}.{bound}" for name in theirs]) for bound in names}


def _patches(config: ViTConfig, theirs: str) -> Table:
    window = [config.patch_size, config.patch_size]
    if config.num_frames > 1:
        window = [config.num_frames, *window]
    table: Table = {"patches.projection.weight": kernel(f"{theirs}.weight", (3, *window))}
    if config.has_patch_bias:
        table["patches.projection.bias"] = f"{theirs}.bias"
    return table


def _extra_tokens(config: ViTConfig, class_token: str, registers: str) -> Table:
    rows = {class_token: int(config.has_class_token), registers: config.num_registers}
    rows = {name: count for name, count in rows.items() if count}
    return {"extra_tokens": stacked(rows, leading=1)} if rows else {}


def _leading_ones(name: str, width: int) -> Rule:
    return reshaped(name, ours=(width,), theirs=(1, 1, width))
