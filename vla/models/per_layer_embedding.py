"""A second, narrow embedding of every token that each layer reads for itself (Gemma 4 E2B and E4B, after Gemma 3n).

input[i] = (norm(projection(x0))[i] + embedding(token)[i]) / sqrt(2)
x = x + post_norm[i](output[i](activation(gate[i](x)) * input[i]))      after layer i
"""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor, nn

from vla.models.decoder_config import DecoderConfig
from vla.nn.mlp import activate
from vla.nn.norms import make_norm


class PerLayerEmbedding(nn.Module):
    """Inputs for all layers at once, and what each layer makes of its own."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, narrow, depth = config.width, config.per_layer_width, config.depth
        self.embedding = nn.Embedding(config.per_layer_vocab_size, depth * narrow)
        self.projection = nn.Linear(width, depth * narrow, bias=False)
        self.norm = make_norm(config.norm, narrow, config.norm_eps)
        self.gates = nn.ModuleList(nn.Linear(width, narrow, bias=False) for _ in range(depth))
        self.outputs = nn.ModuleList(nn.Linear(narrow, width, bias=False) for _ in range(depth))
        self.post_norms = nn.ModuleList(
            make_norm(config.norm, width, config.norm_eps) for _ in range(depth)
        )

    def forward(
        self, x: Float[Tensor, "batch tokens width"], token_ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens layers narrow"]:
        """Returns the inputs of all layers.

        Args:
            x: what enters the first layer, image tokens included.
            token_ids: the tokens' ids, the padding id where an image token stands.
        """
        narrow = self.config.per_layer_width
        from_stream = self.projection(x) * self.config.width**-0.5
        from_stream = self.norm(from_stream.unflatten(-1, (-1, narrow)))
        embedded = self.embedding(token_ids) * narrow**0.5
        return (from_stream + embedded.unflatten(-1, (-1, narrow))) * math.sqrt(0.5)

    def add(
        self,
        layer: int,
        x: Float[Tensor, "batch tokens width"],
        inputs: Float[Tensor, "batch tokens layers narrow"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the stream after `layer` has read its own input."""
        gate = activate(self.gates[layer](x), self.config.activation)
        return x + self.post_norms[layer](self.outputs[layer](gate * inputs[:, :, layer]))
