"""The mask codec of PaliGemma, vae-oid.npz: weights named as in torch, under `encoder`, `decoder` and `_vq_vae`.

Every width is read from the weights. Source: big_vision, pp/proj/paligemma/segmentation.py (encoder and codebook);
the decoder's names follow its published notebook. The file itself was not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vla.checkpoints.keymap import KeyMap, Table, affine, repeated
from vla.errors import CheckpointError
from vla.models.mask_codec import MaskCodecConfig, MaskReading
from vla.tokenizers.loc_seg import NUM_CODEWORDS

CODEBOOK = "_vq_vae._embedding"
_STRIDED, _RESIDUAL = (0, 2, 4, 6), (8, 9)  # layers of the encoder; 10 is the last
_TRANSPOSED, _DECODER_RESIDUAL = (
    (4, 6, 8, 10),
    (2, 3),
)  # of the decoder; 0 is the first, 12 the last


def codec_config(weights: Mapping[str, Tensor]) -> MaskCodecConfig:
    """Returns the shape of the codec that has these weights.

    Raises:
        CheckpointError: a weight that tells a width is absent or not of its kind, by name.
    """

    def shape(name: str, num_axes: int, kernel: int | None = None) -> tuple[int, ...]:
        if name not in weights:
            raise CheckpointError(
                f"no {name} among the weights; they are not a mask codec's such as vae-oid.npz"
            )
        found = tuple(weights[name].shape)
        if len(found) != num_axes or (kernel is not None and found[2:] != (kernel, kernel)):
            expected = f"{num_axes} axes" + (
                f" and a window of {kernel} x {kernel}" if kernel else ""
            )
            raise CheckpointError(f"{name} has shape {found}; a mask codec's has {expected}")
        return found

    num_codes, width = shape(CODEBOOK, 2)
    if num_codes != NUM_CODEWORDS:
        raise CheckpointError(
            f"{CODEBOOK} holds {num_codes} codewords; there are {NUM_CODEWORDS} <seg> tokens"
        )
    return MaskCodecConfig(
        encoder_widths=tuple(shape(f"encoder.{i}.weight", 4, 4)[0] for i in _STRIDED),
        residual_width=shape("decoder.0.weight", 4, 1)[0],
        decoder_widths=tuple(shape(f"decoder.{i}.weight", 4, 4)[1] for i in _TRANSPOSED),
        codeword_width=width,
        reading=MaskReading.SIGNED,
    )


def key_map(config: MaskCodecConfig) -> KeyMap:
    """Returns the map of both halves and the codebook."""
    del config  # the layers are the same whatever their widths
    block = {**affine("net.0", "net.0"), **affine("net.2", "net.2"), **affine("net.4", "net.4")}
    table: Table = {"codebook": CODEBOOK}
    for half, plain, residual in (
        ("encoder", (*_STRIDED, 10), _RESIDUAL),
        ("decoder", (0, *_TRANSPOSED, 12), _DECODER_RESIDUAL),
    ):
        for index in plain:
            table |= affine(f"{half}.{index}", f"{half}.{index}")
        for index in residual:
            table |= repeated(f"{half}.{index}.", f"{half}.{index}.", block, 1)
    # counts and sums of the moving average that the codebook was trained with
    return KeyMap(family="PaliGemma's mask codec", table=table, unread=["_vq_vae._*"])
