"""Decoder shapes as data."""

from __future__ import annotations

from vla.models.decoder import DecoderConfig


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
    return DecoderConfig(vocab_size=vocab_size)
