"""What a model costs to run, from its shape alone: operations, and memory for keys and values.

A multiplication with its addition counts as two operations. Each linear layer costs twice its weights for every token
that passes it, attention 4 x heads x head_dim for every pair of a query and a key; pairs that a mask forbids are
counted, for the kernels compute them. Norms, activations, softmax and rotation are left out. Tests compare these
formulas with torch.utils.flop_counter.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision.vit import ViT


@dataclass(frozen=True, kw_only=True)
class KVBytes:
    """Memory of the keys and values of one token.

    Attributes:
        per_token: in all layers that have keys of their own; what `KVCache` takes.
        per_far_token: in full layers alone: all that is still needed of a token that left the window.
        window: tokens; None: no layer forgets.
    """

    per_token: int
    per_far_token: int
    window: int | None


def linear_flops(module: nn.Module) -> int:
    """Returns the operations of one token that passes every linear layer of `module` once."""
    linears = (part for part in module.modules() if isinstance(part, nn.Linear))
    return 2 * sum(linear.weight.numel() for linear in linears)


def attention_flops(num_heads: int, head_dim: int, num_queries: int, num_keys: int) -> int:
    """Returns the operations of scores and weighted sums."""
    return 4 * num_heads * head_dim * num_queries * num_keys


def tower_flops(tower: ViT, num_patches: int) -> int:
    """Returns the operations that make patch features of one picture, cut into `num_patches`, filling included."""
    config = tower.config
    num_tokens = num_patches + config.num_extra_tokens
    blocks = tower.blocks[: config.num_read_blocks]
    matrices = sum(linear_flops(block) for block in blocks) * num_tokens
    one = attention_flops(config.num_heads, config.head_dim, num_tokens, num_tokens)
    return _patch_flops(tower, num_patches) + matrices + len(blocks) * one


def decoder_flops(decoder: Decoder, num_tokens: int, num_keys: int) -> int:
    """Returns the operations that read `num_tokens` new tokens, the head left out.

    Args:
        decoder: may be on the meta device.
        num_tokens: tokens read in one go.
        num_keys: tokens in the cache after that, the new ones included.
    """
    config = decoder.config
    flops = linear_flops(decoder.layers) * num_tokens
    if decoder.per_layer is not None:
        flops += linear_flops(decoder.per_layer) * num_tokens
    for layer in range(config.depth):
        attention = config.block(layer).attention()
        flops += attention_flops(attention.num_heads, attention.head_dim, num_tokens, num_keys)
    return flops


def head_flops(decoder: Decoder) -> int:
    """Returns the operations of the logits of one token; 0 for a decoder without a head."""
    config = decoder.config
    return 0 if config.head is Head.NONE else 2 * config.width * config.vocab_size


def kv_bytes(config: DecoderConfig, bytes_per_number: int = 2) -> KVBytes:
    """Returns what the keys and values of a token take; bf16 unless said otherwise."""
    sizes = {
        layer: 2 * shape.num_heads * shape.head_dim * bytes_per_number
        for layer in range(config.depth)
        if (shape := config.kv_shape(layer)) is not None
    }
    far = sum(size for layer, size in sizes.items() if config.is_full(layer))
    return KVBytes(per_token=sum(sizes.values()), per_far_token=far, window=config.window)


def _patch_flops(tower: ViT, num_patches: int) -> int:
    """The patch embedding, and the stem of convolutions before it, each of which halves the map."""
    embedding = tower.patches
    flops = linear_flops(embedding.projection) * num_patches
    map_positions = num_patches * embedding.square**2
    for convolution in reversed(embedding.stem):
        assert isinstance(convolution, nn.Conv2d)
        flops += 2 * convolution.weight.numel() * map_positions
        map_positions *= 4
    return flops
