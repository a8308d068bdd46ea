"""Decoder shapes as data, each with its source."""

from __future__ import annotations

from vla.models.decoder_config import DecoderConfig, Head
from vla.nn.mlp import Activation
from vla.nn.norms import Norm


def tiny(vocab_size: int, width: int = 192, depth: int = 5) -> DecoderConfig:
    """Returns a Llama of a few million parameters, for training on a CPU."""
    return DecoderConfig(
        vocab_size=vocab_size,
        width=width,
        depth=depth,
        num_heads=width // 32,
        num_kv_heads=width // 32,
        head_dim=32,
        mlp_width=width * 8 // 3,
    )


def llama2_7b(vocab_size: int = 32064) -> DecoderConfig:
    """Returns Llama 2 7B as OpenVLA resized it: 32000 tokens, <PAD>, then rows up to a multiple of 64.

    Source: meta-llama/Llama-2-7b-hf config.json; openvla/openvla-7b config.json for the vocabulary.
    """
    return DecoderConfig(vocab_size=vocab_size, head=Head.OWN)


def gemma_2b(vocab_size: int = 257216) -> DecoderConfig:
    """Returns Gemma 1 2B; the vocabulary is PaliGemma's, 256000 words with places, masks and 64 spare rows.

    Source: google/gemma-2b and google/paligemma-3b-pt-224 config.json.
    """
    return DecoderConfig(
        vocab_size=vocab_size,
        width=2048,
        depth=18,
        num_heads=8,
        num_kv_heads=1,
        head_dim=256,
        mlp_width=16384,
        activation=Activation.GELU_TANH,
        head=Head.TIED,
        norm=Norm.RMS_OFFSET,
        scales_embedding=True,
        max_tokens=8192,
    )


def gemma2_2b(vocab_size: int = 257216) -> DecoderConfig:
    """Returns Gemma 2 2B with PaliGemma 2's vocabulary: soft-caps, post norms, every other layer windowed.

    Source: google/gemma-2-2b and google/paligemma2-3b-pt-224 config.json.
    """
    return DecoderConfig(
        vocab_size=vocab_size,
        width=2304,
        depth=26,
        num_heads=8,
        num_kv_heads=4,
        head_dim=256,
        mlp_width=9216,
        activation=Activation.GELU_TANH,
        head=Head.TIED,
        norm=Norm.RMS_OFFSET,
        has_post_norms=True,
        attention_scale=256**-0.5,
        attention_softcap=50.0,
        final_softcap=30.0,
        scales_embedding=True,
        window=4096,
        full_layers=list(range(1, 26, 2)),
        max_tokens=8192,
    )


def gemma3_270m() -> DecoderConfig:
    """Returns Gemma 3 270M. Source: google/gemma-3-270m config.json."""
    return DecoderConfig(
        vocab_size=262144,
        width=640,
        depth=18,
        num_heads=4,
        num_kv_heads=1,
        head_dim=256,
        mlp_width=2048,
        activation=Activation.GELU_TANH,
        head=Head.TIED,
        norm=Norm.RMS_OFFSET,
        has_post_norms=True,
        has_qk_norm=True,
        attention_scale=256**-0.5,
        scales_embedding=True,
        window=512,
        full_layers=[5, 11, 17],
        full_rope_theta=1e6,
        max_tokens=32768,
    )


def qwen2_1_5b() -> DecoderConfig:
    """Returns the decoder of Qwen2-VL-2B, with M-RoPE. Source: Qwen/Qwen2-VL-2B-Instruct config.json."""
    return DecoderConfig(
        vocab_size=151936,
        width=1536,
        depth=28,
        num_heads=12,
        num_kv_heads=2,
        head_dim=128,
        mlp_width=8960,
        rope_theta=1e6,
        head=Head.TIED,
        qkv_bias=True,
        rope_sections=[16, 24, 24],
        max_tokens=32768,
    )


def qwen2_7b() -> DecoderConfig:
    """Returns the decoder of Qwen2-VL-7B, with M-RoPE. Source: Qwen/Qwen2-VL-7B-Instruct config.json."""
    return DecoderConfig(
        vocab_size=152064,
        width=3584,
        depth=28,
        num_heads=28,
        num_kv_heads=4,
        head_dim=128,
        mlp_width=18944,
        rope_theta=1e6,
        head=Head.OWN,
        qkv_bias=True,
        rope_sections=[16, 24, 24],
        max_tokens=32768,
    )
