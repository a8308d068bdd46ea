"""Masks as 16 codewords of 128, PaliGemma's <seg> tokens: a vector-quantised autoencoder of 64 x 64 masks.

    mask in its box, 64 x 64 --encoder--> 4 x 4 vectors --nearest codeword--> 16 indices
    16 indices --codebook--> 4 x 4 vectors --decoder--> 64 x 64 probabilities --paste--> mask in the picture

    encoder   4 convolutions of stride 2, ReLU after each; 2 residual blocks; 1 x 1 convolution
    decoder   1 x 1 convolution, ReLU; 2 residual blocks; 4 transposed convolutions of stride 2, ReLU after each; 1 x 1

Sources: All in Tokens (Ning et al. 2023), whose masks PaliGemma took over (Beyer et al. 2024, section 3.2.3); the
layout is that of vae-oid.npz, read by big_vision's pp/proj/paligemma/segmentation.py. Vector quantisation: van den
Oord et al. 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vla.errors import ConfigError, unknown_name
from vla.tokenizers.loc_seg import NUM_CODEWORDS

CODEC_SIDE = 64  # pixels of the codec's masks

_GRID = 4  # codewords along either side of a mask


class MaskReading(Enum):
    """How the decoder's numbers become probabilities; either way a pixel is inside where the number is above 0."""

    LOGIT = "logit"  # sigmoid: what ours is trained with
    SIGNED = "signed"  # [-1, 1] to [0, 1]: what the released codec was trained with


@dataclass(frozen=True, kw_only=True)
class MaskCodecConfig:
    """The shape of a codec; the defaults are those of `tiny`."""

    encoder_widths: tuple[int, ...] = (16, 32, 64, 64)  # of the strided convolutions
    residual_width: int = 64  # of the decoder's residual blocks; the encoder's have its last width
    decoder_widths: tuple[int, ...] = (64, 48, 24, 16)  # of the transposed convolutions
    codeword_width: int = 32
    reading: MaskReading = MaskReading.LOGIT

    def __post_init__(self) -> None:
        for name in ("encoder_widths", "decoder_widths"):
            widths = getattr(self, name)
            if len(widths) != 4 or min(widths) < 1:  # 64 px / 2^4 = 4 codewords a side
                raise ConfigError(
                    f"{name} must be 4 positive channel counts, one a halving of {CODEC_SIDE} px to {_GRID}; "
                    f"got {list(widths)}"
                )


# big_vision_oid: decoder as in the reference's code; encoder widths and codewords of 512 are recalled, not read from
# the file, so `vla.checkpoints.maps.mask_codec.codec_config` takes every width from the file itself.
MASK_CODEC_PRESETS = {
    "tiny": MaskCodecConfig(),
    "big_vision_oid": MaskCodecConfig(
        encoder_widths=(16, 32, 64, 128),
        residual_width=128,
        decoder_widths=(128, 64, 32, 16),
        codeword_width=512,
        reading=MaskReading.SIGNED,
    ),
}


def mask_codec_preset(name: str) -> MaskCodecConfig:
    """Returns a named shape; raises ConfigError for an unknown name."""
    if name not in MASK_CODEC_PRESETS:
        raise ConfigError(unknown_name("mask codec", name, MASK_CODEC_PRESETS))
    return MASK_CODEC_PRESETS[name]


@dataclass(frozen=True, kw_only=True)
class MaskCodecOutput:
    """What training needs of one pass. B masks, 16 codewords each, D numbers a codeword.

    Attributes:
        mask_logits: (B, 64, 64), above 0 inside.
        encoded: (B, 16, D) vectors before quantisation.
        quantised: (B, 16, D) the codewords chosen for them, carrying gradient to the codebook alone.
        codes: (B, 16) int64, 0..127.
    """

    mask_logits: Tensor
    encoded: Tensor
    quantised: Tensor
    codes: Tensor


class MaskCodec(nn.Module):
    """Masks to codewords and back; `vla.data.mask_crops` brings masks into their boxes and out again."""

    def __init__(self, config: MaskCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)
        self.codebook = nn.Parameter(torch.randn(NUM_CODEWORDS, config.codeword_width))

    @torch.no_grad()
    def encode(self, masks: Float[Tensor, "batch 64 64"]) -> Int[Tensor, "batch 16"]:
        """Returns the codewords 0..127 of masks in [0, 1], row by row from the top left."""
        return self._nearest(self._encoded(masks))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch 16"]) -> Float[Tensor, "batch 64 64"]:
        """Returns the probability of every pixel to lie inside.

        Raises:
            ConfigError: a code outside 0..127.
        """
        if codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < NUM_CODEWORDS):
            raise ConfigError(
                f"codewords lie in 0..{NUM_CODEWORDS - 1}; got {int(codes.min())}..{int(codes.max())}: "
                "give the number in <seg000>, not the token's id"
            )
        logits = self._decoded(self.codebook[codes]).float()
        if self.config.reading is MaskReading.LOGIT:
            return logits.sigmoid()
        return (logits / 2 + 0.5).clamp(0.0, 1.0)

    def forward(self, masks: Float[Tensor, "batch 64 64"]) -> MaskCodecOutput:
        """Returns reconstructions whose gradient passes straight through the quantisation to the encoder."""
        encoded = self._encoded(masks)
        codes = self._nearest(encoded.detach())
        quantised = self.codebook[codes]
        straight_through = encoded + (quantised - encoded).detach()
        return MaskCodecOutput(
            mask_logits=self._decoded(straight_through),
            encoded=encoded,
            quantised=quantised,
            codes=codes,
        )

    def _encoded(self, masks: Tensor) -> Tensor:
        grid = self.encoder(2.0 * masks[:, None] - 1.0)  # big_vision's _norm: inside +1, outside -1
        return grid.flatten(2).transpose(1, 2).float()

    def _nearest(self, encoded: Tensor) -> Tensor:
        # |e - c|^2 without |e|^2, which is the same for every codeword; fp32, or near ties would depend on the dtype
        with torch.autocast(encoded.device.type, enabled=False):
            codebook = self.codebook.detach().float()
            scores = encoded.float() @ codebook.T - codebook.square().sum(dim=-1) / 2
        return scores.argmax(dim=-1)

    def _decoded(self, codewords: Tensor) -> Tensor:
        grid = codewords.transpose(1, 2).unflatten(2, (_GRID, _GRID))
        return self.decoder(grid)[:, 0]


@torch.no_grad()
def revive_codewords(
    codec: MaskCodec,
    encoded: Float[Tensor, "batch 16 width"],
    codes: Int[Tensor, "batch 16"],
    *,
    chance: float,
) -> Int[Tensor, ""]:
    """Moves codewords that this batch did not use onto encoder outputs drawn from it; returns how many moved.

    Without it most of a codebook is never chosen and so never learns. A codeword is moved with probability `chance`
    only, so that a rare one is seldom taken for a dead one. Nothing is remembered between calls: with the state of
    torch's generator a resumed run repeats the same draws.
    """
    used = torch.zeros(NUM_CODEWORDS, dtype=torch.bool, device=codes.device)
    used[codes.flatten()] = True
    moves = ~used & (torch.rand(NUM_CODEWORDS, device=codes.device) < chance)
    vectors = encoded.flatten(0, 1)
    drawn = torch.randint(len(vectors), (NUM_CODEWORDS,), device=codes.device)
    codec.codebook.copy_(torch.where(moves[:, None], vectors[drawn], codec.codebook))
    return moves.sum()


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a 1 x 1, added to their input. `net` is the reference's name for them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def _encoder(config: MaskCodecConfig) -> nn.Sequential:
    """Layers 0..10, numbered as in the reference's weights."""
    layers: list[nn.Module] = []
    inputs = 1
    for width in config.encoder_widths:
        layers += [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.ReLU()]
        inputs = width
    layers += [_ResidualBlock(inputs), _ResidualBlock(inputs)]
    return nn.Sequential(*layers, nn.Conv2d(inputs, config.codeword_width, 1))


def _decoder(config: MaskCodecConfig) -> nn.Sequential:
    """Layers 0..12, numbered as in the reference's weights."""
    inputs = config.residual_width
    layers: list[nn.Module] = [nn.Conv2d(config.codeword_width, inputs, 1), nn.ReLU()]
    layers += [_ResidualBlock(inputs), _ResidualBlock(inputs)]
    for width in config.decoder_widths:
        layers += [nn.ConvTranspose2d(inputs, width, 4, stride=2, padding=1), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 1))
