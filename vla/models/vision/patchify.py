"""From pictures to patch tokens: a linear patch embedding, optionally after a stem of small convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbedding(nn.Module):
    """Cuts a map into squares and maps each to a token; rows top to bottom, columns left to right.

    With `stem_channels`, 3x3 convolutions of stride 2 with ReLU come first, each halving the map, and the
    squares are cut from what is left (Xiao et al. 2021: early convolutions help small transformers). A
    patch of 16 pixels after three convolutions is a 2x2 square of the stem's last map.

    Without a stem this is the strided convolution of ViT as one matrix product: a convolution weight
    (width, 3, patch, patch) is `projection.weight` after `permute(0, 2, 3, 1).flatten(1)`. A patch of several
    frames is numbered (frames, rows, columns, channels); a still picture is repeated to fill it.
    """

    def __init__(
        self,
        width: int,
        patch_size: int,
        *,
        stem_channels: Sequence[int] = (),
        num_frames: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        channels = [3, *stem_channels]
        self.stem = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size=3, stride=2, padding=1)
            for c_in, c_out in itertools.pairwise(channels)
        )
        self.num_frames = num_frames
        self.square = patch_size // 2 ** len(stem_channels)
        self.projection = nn.Linear(num_frames * channels[-1] * self.square**2, width, bias=bias)

    def forward(
        self, pixels: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch patches channels"]:
        """Returns one token a patch.

        The map is kept channels-last, which halves the time of the stem on a CPU.
        """
        x = pixels.to(self.projection.weight.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        for convolution in self.stem:
            x = F.relu(convolution(x))
        B, C, H, W = x.shape
        s = self.square
        squares = x.permute(0, 2, 3, 1).unflatten(1, (-1, s)).unflatten(3, (-1, s)).transpose(2, 3)
        squares = squares.reshape(B, (H // s) * (W // s), s * s * C)
        if self.num_frames > 1:
            squares = squares.repeat(1, 1, self.num_frames)
        return self.projection(squares)
